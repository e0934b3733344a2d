"""How long and how fast to train: the settings of a run, and what they mean at each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from mezzotint import PluginError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mezzotint_training.trainer import Replicas

__all__ = ["OptimiserName", "Recipe", "make_optimiser"]

OptimiserName = Literal["adamw", "adam", "muon", "rmsprop", "sgd"]
OWN = {"optimiser", "learning_rate", "betas", "weight_decay", "clip"}


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train.

    steps: total number of training steps. learning_rate: its plateau.
    warm_up: steps of linear rise. cool_down: share of the steps at the end with linear fall to 0.
    optimiser: "muon" turns hidden matrices by orthogonal steps and leaves the rest to AdamW; "rmsprop" takes its
    decay from the second of `betas`, "sgd" its momentum from the first.
    clip: largest gradient norm of a part; 0 is none.
    ema: decay of the weight average, ramped up from 0; 0 is none.
    accumulate: batches whose mean gradient makes one step.
    precision: "bfloat16" computes losses under autocast; the weights stay in float32.
    """

    steps: int
    learning_rate: float = 1e-3
    warm_up: int = 300
    cool_down: float = 0.25
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    optimiser: OptimiserName = "adamw"
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"

    def rate(self, step: int) -> float:
        """Learning rate of a 0-based step: trapezoid of warm-up, plateau and cool-down."""
        rise = (step + 1) / max(self.warm_up, 1)
        fall = (self.steps - step) / max(self.steps * self.cool_down, 1)
        return self.learning_rate * max(0.0, min(1.0, rise, fall))

    def decay(self, step: int) -> float:
        """EMA decay of a 0-based step: (1 + n) / (10 + n), at most `ema`."""
        return min(self.ema, (1 + step) / (10 + step))

    def own(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The optimiser's settings, with a part's own changes.

        Raises: PluginError: a setting or an optimiser that is none.
        """
        unknown = sorted(changes.keys() - OWN)
        if unknown:
            raise PluginError(f"a part's optimiser has no {unknown[0]!r}; it has {', '.join(sorted(OWN))}")
        settings = {name: changes.get(name, getattr(self, name)) for name in OWN}
        if settings["optimiser"] not in get_args(OptimiserName):
            known = ", ".join(get_args(OptimiserName))
            raise PluginError(f"no optimiser {settings['optimiser']!r}; there are {known}")
        return settings


def make_optimiser(
    parameters: Mapping[str, Tensor], settings: Mapping[str, Any], replicas: Replicas
) -> torch.optim.Optimizer:
    """The optimiser of named parameters. settings: as `Recipe.own` gives them."""
    import torch

    from mezzotint_training.muon import MuonAdamW

    tuned = list(parameters.values())
    betas = tuple(settings["betas"])
    common = {"lr": settings["learning_rate"], "weight_decay": settings["weight_decay"]}
    match settings["optimiser"]:
        case "adamw":
            return torch.optim.AdamW(tuned, fused=True, betas=betas, **common)
        case "adam":
            return torch.optim.Adam(tuned, fused=True, betas=betas, **common)
        case "rmsprop":
            return torch.optim.RMSprop(tuned, alpha=betas[1], **common)
        case "sgd":
            return torch.optim.SGD(tuned, momentum=betas[0], **common)
        case _:
            return MuonAdamW(
                parameters, rank=replicas.rank, world=replicas.world, total=replicas.total, betas=betas, **common
            )
