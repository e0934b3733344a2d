"""What the audit compiles of the norms and gates of SD 1.5 and SDXL."""

from __future__ import annotations

import math
from typing import Any

import torch

from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.norm import geglu_arguments, norm_silu_arguments
from mezzotint_kernels.tiles import Tile

__all__ = ["cases"]

_GROUPS = 32


def cases() -> list[Case]:
    """Group norms of three levels, one with scale and shift; the gates of a feed-forward layer."""
    norms = [
        _norm((2, 320, 64, 64), torch.float16),
        _norm((2, 640, 32, 32), torch.float16, modulated=True),
        _norm((2, 1280, 16, 16), torch.bfloat16),
        _norm((2, 320, 64, 64), torch.float32),
    ]
    gates = [_geglu((2, 4096, 2560), torch.float16), _geglu((2, 4096, 5120), torch.float16)]
    return [*norms, *gates, _geglu((2, 1024, 5120), torch.float32)]


def _norm(shape: tuple[int, ...], dtype: torch.dtype, *, modulated: bool = False) -> Case:
    size = math.prod(shape)

    def arguments(tile: Tile, arch: str) -> dict[str, Any]:
        x = torch.empty(shape, dtype=dtype, device="meta")
        weight = torch.empty(shape[1], device="meta")
        # Parameters in float32; in a 16-bit dtype each is one load of 2 bytes for a whole channel.
        scale = torch.empty(shape[:2], device="meta") if modulated else None
        return norm_silu_arguments(tile, x, _GROUPS, weight, weight, scale, scale, 1e-5)

    return Case(
        op="norm_silu",
        label=f"{'x'.join(map(str, shape))}, {_name(dtype)}{', scale and shift' if modulated else ''}",
        kernel="norm_silu",
        head_dim=0,
        function="mezzotint_kernels._triton.norm:_norm_silu_kernel",
        arguments=arguments,
        grid=lambda tile: shape[0] * _GROUPS,
        has_dot=False,
        fewest_bytes=2 * size * dtype.itemsize,
        # The second reading is the L2 cache's.
        moved_bytes=lambda tile: 3 * size * dtype.itemsize,
        # torch reads twice and writes for the norm, and reads and writes for each of the others.
        eager_bytes=(5 + 4 * modulated) * size * dtype.itemsize,
        ci=shape[1] == 640,
    )


def _geglu(shape: tuple[int, ...], dtype: torch.dtype) -> Case:
    half = math.prod(shape) // 2
    return Case(
        op="geglu",
        label=f"{'x'.join(map(str, shape))}, {_name(dtype)}",
        kernel="geglu",
        head_dim=0,
        function="mezzotint_kernels._triton.norm:_geglu_kernel",
        arguments=lambda tile, arch: geglu_arguments(tile, torch.empty(shape, dtype=dtype, device="meta")),
        grid=lambda tile: math.prod(shape[:-1]) * -(-shape[-1] // 2 // tile.rows),
        has_dot=False,
        fewest_bytes=3 * half * dtype.itemsize,
        # torch writes the gate's GELU and reads it again.
        eager_bytes=5 * half * dtype.itemsize,
        ci=shape[-1] == 2560,
    )


def _name(dtype: torch.dtype) -> str:
    return {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
