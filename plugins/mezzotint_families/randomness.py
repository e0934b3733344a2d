"""Random numbers on the device of a tensor, from a generator of whatever device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["normal_like", "uniform_like"]


def normal_like(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers of the shape, dtype and device of `like`."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def uniform_like(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers in [0, 1) of the shape, dtype and device of `like`."""
    device = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
