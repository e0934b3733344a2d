"""Launching the kernel of `normals`, and what it shares with others that draw in registers."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mezzotint_kernels.dispatch import architecture
from mezzotint_kernels.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

__all__ = ["device_keys", "launch_normals", "layout", "normals_arguments", "on_device", "power_of_two", "signed"]


def launch_normals(tile: Tile | None, out: Tensor, seed: int | Tensor, step: int, stream: int) -> Tensor:
    """Fill `out`, [B, ...] and contiguous, as `normals` does. tile: None in the interpreter."""
    from mezzotint_kernels._triton.philox import _normals_kernel

    size = out.numel() // max(out.shape[0], 1)
    if size == 0:
        return out
    tile = tile or Tile(max(4, min(512, power_of_two(size))))
    with on_device(out):
        arguments = normals_arguments(tile, out, seed, step, stream)
        _normals_kernel[(out.shape[0] * math.ceil(size / tile.rows),)](
            **arguments, enable_fp_fusion=False, **tile.options(architecture(out.device))
        )
    return out


def normals_arguments(tile: Tile, out: Tensor, seed: int | Tensor, step: int, stream: int) -> dict[str, Any]:
    """The arguments of `_normals_kernel`."""
    frames, pixels, kind = layout(out.shape)
    return {
        "p_out": out, "p_keys": device_keys(seed, out.shape[0], out.device), "n": out.numel() // out.shape[0],
        "frames": frames, "pixels": pixels, "step": signed(step), "stream": signed(stream),
        "LAYOUT": kind, "BLOCK": tile.rows,
    }  # fmt: skip


def layout(shape: Sequence[int]) -> tuple[int, int, int]:
    """Frames, pixels a frame, and the kernel's LAYOUT: 0 FLAT, 1 QUADS, 2 SINGLES."""
    if len(shape) != 5 or shape[2] == 1:
        return 1, math.prod(shape[1:]), 0
    pixels = shape[3] * shape[4]
    return shape[2], pixels, 1 if pixels % 4 == 0 else 2


def device_keys(seed: int | Tensor, batch: int, device: torch.device) -> Tensor:
    """The key of each sample, int64 [B] on the device. One copy per seed and not per step: a run has one seed."""
    from mezzotint_kernels.philox import sample_keys

    if isinstance(seed, Tensor):
        return sample_keys(seed, batch, device).contiguous()
    return _int_keys(seed, batch, device)


@lru_cache(maxsize=64)
def _int_keys(seed: int, batch: int, device: torch.device) -> Tensor:
    from mezzotint_kernels.philox import sample_keys

    return sample_keys(seed, batch, device)


def signed(word: int) -> int:
    """A 32-bit word as the int32 of the same bits, so that an argument has one type whatever its size."""
    return word - 2**32 if word >= 2**31 else word


def power_of_two(size: int) -> int:
    """The smallest one that is not below `size`."""
    return 1 << max(size - 1, 0).bit_length()


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
