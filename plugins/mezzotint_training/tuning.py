"""`training.tune`: some layers of a denoiser that exists, trained to understand another conditioning.

What comes out is what changed, and the conditioner: a small file beside a model that stays as it is. Custom
Diffusion tunes parts of cross-attention for the same reason (Kumari et al. 2023): there a denoiser is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Autoencoder, Denoiser, UserError, node
from mezzotint_models import Architecture
from mezzotint_training.conditioner import Conditioner
from mezzotint_training.diffusion import DiffusionObjective
from mezzotint_training.objective import Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_training.tuning_task import TuningTask

__all__ = ["TuningObjective", "tune"]

Share = Annotated[float, Field(ge=0, le=1)]


@node("training.tune")
def tune(
    denoiser: Denoiser,
    conditioner: Conditioner,
    autoencoder: Autoencoder | None = None,
    *,
    layers: Annotated[list[str], Field(min_length=1)] = ["attn2"],  # noqa: B006
    weighting: Literal["simple", "min_snr", "p2"] = "simple",
    gamma: Annotated[float, Field(gt=0, le=1e6)] | None = None,
    drop: Share = 0.1,
    loss: Literal["l2", "l1"] = "l2",
    focus: Share = 0.0,
    from_level: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> Objective:
    """Train some layers of a denoiser that exists, and a conditioner with them, by the diffusion objective.

    The weights come as one value: the differences "tuned", which models.tuned puts on the same denoiser, and what
    learnt along with it.

    denoiser: to begin from; as it is, without guidance.
    conditioner: what it is told of an item, as context.
    autoencoder: whose latents it denoises, if it does not work in pixels.
    layers: tensors whose names contain one of these are trained, the others stay. attn2 is cross-attention.
    weighting, gamma, drop, loss, focus: as in training.diffusion.
    from_level: share of the noise schedule, from its clean end, that is left out: where things are is settled
    under much noise.

    Raises: UserError: layers that the denoiser does not have, or patches on it, when training starts.
    """
    if denoiser.patches:
        raise UserError("training.tune: wanted the denoiser as it is, got one with patches: guide it afterwards")
    architecture = Architecture(
        cls="", config={}, schedule=denoiser.schedule, channels=denoiser.channels,
        sample_size=denoiser.sample_size, space=denoiser.space, downscale=denoiser.downscale,
    )  # fmt: skip
    return TuningObjective(
        architecture, conditioner, autoencoder, weighting=weighting, gamma=gamma, drop=drop, loss=loss,
        focus=focus, denoiser=denoiser, layers=tuple(layers), from_level=from_level,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TuningObjective(DiffusionObjective):
    """A denoiser that exists; fields as in `training.tune`."""

    denoiser: Denoiser | None = None
    layers: tuple[str, ...] = ()
    from_level: float = 0.0

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> TuningTask:
        from mezzotint_training.diffusion_checks import check_settings
        from mezzotint_training.tuning_task import open_tuning

        check_settings(self)
        return open_tuning(self, ctx, reader, seed, batch)

    def reading(self, config: Mapping[str, Any]) -> TuningObjective:
        """The same with what the network reads as its architecture's configuration."""
        return self.replace(architecture=self.architecture.replace(config=dict(config)))
