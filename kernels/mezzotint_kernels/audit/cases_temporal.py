"""What the audit compiles of attention over frames: SD 1.5 and SDXL shapes of clips, odd sizes, masks, float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.dense_launch import head_split
from mezzotint_kernels.temporal import temporal_arguments, temporal_kernel
from mezzotint_kernels.tiles import Tile

__all__ = ["cases"]


@dataclass(frozen=True)
class Shape:
    """One call: B, F, P, H, D, dtype, and whether it is causal and has a bias of heads."""

    what: str
    batch: int
    frames: int
    pixels: int
    heads: int
    size: int
    dtype: torch.dtype = torch.float16
    masked: bool = False

    @property
    def label(self) -> str:
        dtype = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[self.dtype]
        masked = ", causal, bias" if self.masked else ""
        return f"{self.what}, {self.frames} frames, {self.pixels} pixels, D{self.size}, {dtype}{masked}"

    @property
    def numbers(self) -> int:
        return self.batch * self.frames * self.pixels * self.heads * self.size

    def grid(self, tile: Tile) -> int:
        return self.batch * self.heads * -(-self.pixels // tile.rows)

    def performed(self, tile: Tile) -> int:
        frames = 16 if self.frames <= 16 else 32
        return 4 * tile.rows * frames * frames * sum(head_split(self.size)) * self.grid(tile)


_CLIPS = (
    Shape("SD 1.5", 2, 16, 4096, 8, 40),
    Shape("SD 1.5", 2, 16, 1024, 8, 80),
    Shape("SD 1.5", 2, 16, 256, 8, 160),
    Shape("SDXL", 2, 16, 4096, 10, 64),
    Shape("two streams", 1, 16, 1024, 24, 128, torch.bfloat16),
)
_SIZES = {40: 8, 64: 10, 80: 8, 128: 24, 160: 8}
"""Head sizes, and how many heads models have of them."""


def cases() -> list[Case]:
    """Each row of the table of tiles, plain, and with odd sizes, a bias and causality at once."""
    found = list(_CLIPS)
    for size, heads in _SIZES.items():
        found += [Shape("odd", 2, 13, 1001, heads, size, masked=True)]
        found += [Shape("long", 2, 32, 1024, heads, size), Shape("odd", 2, 24, 1001, heads, size, masked=True)]
    exact = [Shape("exact", 2, 13, 1001, heads, size, torch.float32, True) for size, heads in _SIZES.items()]
    return [_case(shape) for shape in (*found, *exact)]


def _case(shape: Shape) -> Case:
    kernel, _ = temporal_kernel(shape.frames)
    bias = 4 * shape.heads * shape.frames**2 if shape.masked else 0
    pairs = shape.numbers * shape.frames
    whole = shape.numbers * shape.dtype.itemsize
    return Case(
        op="temporal_attention",
        label=shape.label,
        kernel=f"{kernel}.fp32" if shape.dtype == torch.float32 else kernel,
        head_dim=shape.size,
        function="mezzotint_kernels._triton.temporal:_fwd_kernel",
        arguments=partial(_arguments, shape),
        grid=shape.grid,
        has_dot=True,
        flops=4 * pairs,
        performed_flops=shape.performed,
        fewest_bytes=4 * whole + bias,
        # q, k, v and the result are permuted: each is read and written once more.
        eager_bytes=12 * whole + bias,
        ci=shape == _CLIPS[0],
        shown=shape in _CLIPS,
    )


def _arguments(shape: Shape, tile: Tile, arch: str) -> Mapping[str, Any]:
    dimensions = (shape.batch, shape.frames, shape.pixels, shape.heads, shape.size)
    x = torch.empty(dimensions, dtype=shape.dtype, device="meta")
    bias: Tensor | None = None
    if shape.masked:
        bias = torch.empty(1, shape.heads, shape.frames, shape.frames, device="meta")
    return temporal_arguments(x, x, x, bias, x, shape.masked, shape.size**-0.5, tile, arch)
