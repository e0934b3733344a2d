"""How a tensor lies in memory for a kernel that counts strides in units of 16 bytes. Meta tensors are welcome."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["aligned", "dot_precision", "unit"]


def unit(x: Tensor) -> int:
    """What strides are counted in, in elements: 16 bytes, or less where the last size is no multiple of it."""
    return math.gcd(16 // x.element_size(), x.shape[-1])


def aligned(x: Tensor) -> Tensor:
    """x, or a contiguous copy of it if its rows do not begin at multiples of 16 bytes."""
    step = unit(x)
    steps = (stride for stride, size in zip(x.stride()[:-1], x.shape, strict=False) if size > 1)
    fits = x.stride(-1) == 1 and not any(stride % step for stride in steps)
    fits = fits and (x.is_meta or x.data_ptr() % 16 == 0)
    return x if fits else x.clone(memory_format=torch.contiguous_format)


def dot_precision(dtype: torch.dtype, arch: str) -> str:
    """Triton's `input_precision`: float32 as three TF32 products, six bfloat16 ones on AMD: as good as exact."""
    if dtype != torch.float32:
        return "tf32"
    return "bf16x6" if arch.startswith("gfx") else "tf32x3"
