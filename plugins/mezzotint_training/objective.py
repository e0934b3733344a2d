"""What is trained: an objective as a value on an edge, and the task that it becomes when training begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mezzotint import Port

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mezzotint import Context, Image, Weights

__all__ = ["Objective", "Part", "Task"]


@dataclass(frozen=True, eq=False)
class Objective(Port):
    """What to train, as a description: networks by their settings, the loss, how items become batches.

    A plugin derives a frozen dataclass of JSON fields from it, registers that in `register_ports`, and has a node
    that makes one; `training.train` takes any.

    reads_dataset: false for one that holds all that it learns from; `open` is then given no reader.
    """

    reads_dataset: ClassVar[bool] = True

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> Task:
        """Build the networks, on the CPU and in float32, with the same numbers for the same seed.

        reader: of the data set, see `Context.open_dataset`. batch: items of one batch.

        Raises: UserError: the data set lacks what the loss needs.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Part:
    """Modules with an optimiser of their own, which takes `repeats` steps in every `every`-th training step.

    name: what `Task.loss` is asked for. modules: names in `Task.modules`; a module belongs to one part at most; in
    none, it stays as it is or as `after` makes it. optimiser: what differs from the trainer's own settings, of
    "optimiser", "learning_rate", "betas", "weight_decay" and "clip".
    """

    name: str
    modules: tuple[str, ...]
    every: int = 1
    repeats: int = 1
    optimiser: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """An objective, opened. Derive from it: what is below `weights` may be left out.

    Every random number comes from the generator that is given, or from torch's own, which the trainer
    seeds for each loss; so a run that was stopped goes on in the same bits.
    """

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def batch(self, step: int, rank: int) -> Any:
        """The batch number `step`, a function of its arguments alone: see `rows`. Its tensors go to the device."""
        ...

    def loss(self, batch: Any, part: str, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss of one batch for a part, a mean over the batch, and detached scalars for the report.

        Only the part's parameters require a gradient meanwhile.
        """
        ...

    def weights(self) -> Weights | dict[str, Weights]:
        """What was trained, from what the modules hold now."""
        ...

    def after(self, part: str) -> None:
        """Called when a part has taken its step: weight clipping, moving-average codebooks."""

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Figures on what is not trained on, with the averaged weights. Early stop watches "loss"."""
        return {}

    def sheet(self, generator: torch.Generator) -> Image | None:
        """A picture of what has been learnt, with the averaged weights."""
        return None
