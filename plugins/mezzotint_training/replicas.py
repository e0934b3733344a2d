"""Data-parallel training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Replicas"]


@dataclass
class Replicas:
    """Data-parallel copies of one run: gradients are averaged over `world` processes."""

    rank: int = 0
    world: int = 1

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over all replicas, in place."""
        if self.world == 1:
            return
        flat = torch._utils._flatten_dense_tensors(tensors)
        self.total(flat)
        flat /= self.world
        parts = torch._utils._unflatten_dense_tensors(flat, tensors)
        torch._foreach_copy_(tensors, list(parts))

    def total(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all replicas, in place."""
        torch.distributed.all_reduce(tensor)
