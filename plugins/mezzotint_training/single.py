"""One loss and one optimiser as a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mezzotint_training.objective import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Single", "SingleLoss"]


class SingleLoss(Protocol):
    """What one optimiser trains with one loss."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The trained modules by name; every parameter that requires a gradient is tuned."""

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss of one batch, and detached scalars worth logging."""


class Single(Task):
    """A task of one part. batches: by (step, rank)."""

    def __init__(self, objective: SingleLoss, batches: Callable[[int, int], Any]) -> None:
        self.objective, self.batches = objective, batches
        self.modules = objective.modules
        self.parts = ()

    def batch(self, step: int, rank: int) -> Any:
        return self.batches(step, rank)

    def loss(self, batch: Any, part: str, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective.loss(batch, generator)
