"""Launching the fused step: the arguments of `noise_step`, laid out as its kernel wants them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mezzotint_kernels.coefficients import MAX_HISTORY, Coefficients, Number
from mezzotint_kernels.dispatch import architecture
from mezzotint_kernels.philox import Draw, stream_id
from mezzotint_kernels.philox_launch import device_keys, layout, on_device, power_of_two, signed
from mezzotint_kernels.step import MOMENTS_BLOCK
from mezzotint_kernels.step_check import used
from mezzotint_kernels.tiles import Tile, find

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["factor_arguments", "launch_step", "moments_arguments", "step_arguments"]

_BITS = {"ax": 4, "am": 5, "cx": 8, "cg": 9, "c0": 10, "cz": 14, "k0": 15, "kz": 16}


def launch_step(
    tile: Tile | None, x: Tensor, outputs: Sequence[Tensor], row: Coefficients, **options: Any
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(x, x0, next) of a step whose arguments have been checked. tile: None in the interpreter.

    options: every keyword argument of `noise_step`.
    """
    from mezzotint_kernels._triton.step import _step_kernel

    size = x.numel() // x.shape[0]
    tile = tile or Tile(max(4, min(512, power_of_two(size))))
    arch = architecture(x.device)
    with on_device(x):
        arguments = step_arguments(tile, x, outputs, row, **options)
        if options["rescale"] != 0.0 and len(outputs) > 1:
            arguments["p_factor"] = _rescaling(arguments, x.shape[0], arch)
        _step_kernel[(x.shape[0] * math.ceil(size / tile.rows),)](
            **arguments, enable_fp_fusion=False, **tile.options(arch)
        )
    return arguments["p_out"], arguments["p_x0"], arguments["p_next"]


def step_arguments(
    tile: Tile,
    x: Tensor,
    outputs: Sequence[Tensor],
    row: Coefficients,
    *,
    weights: Sequence[Number],
    rescale: float,
    history: Sequence[Tensor],
    noise: Tensor | Draw | None,
    mask: Tensor | None,
    known: Tensor | None,
    known_noise: Tensor | Draw | None,
    out_dtype: torch.dtype | None,
    next_dtype: torch.dtype | None,
) -> dict[str, Any]:
    """The arguments of `_step_kernel`, with new tensors for its results; the factor is still to be set."""
    size = x.numel() // x.shape[0]
    out, x0 = (torch.empty(x.shape, dtype=out_dtype or x.dtype, device=x.device) for _ in range(2))
    following = None if next_dtype is None else torch.empty(x.shape, dtype=next_dtype, device=x.device)
    models = [_dense(m, x) for m in outputs]
    past = [_dense(h, x) if used(c) else None for c, h in zip(row.ch, history, strict=True)]
    drawn = _noise(noise if used(row.cz) else None, x, "")
    blend = _blending(mask, known, known_noise if used(row.kz) else None, used(row.k0), x)
    numbers = _row(row, tuple(weights), rescale, x.device)
    in_registers = any(isinstance(z, Draw) for z in (noise, known_noise))
    frames, pixels, kind = layout(x.shape) if in_registers else (1, size, 0)
    named = {f"p_m{i}": models[i] if i < len(models) else None for i in range(4)}
    named |= {f"p_h{i}": past[i] if i < len(past) else None for i in range(MAX_HISTORY)}
    return {
        "p_x": _dense(x, x), **named, "p_row": numbers, "p_factor": None,
        "p_out": out, "p_x0": x0, "p_next": following,
        "n": size, "row_stride": 0 if len(numbers) == 1 else numbers.shape[1],
        "frames": frames, "pixels": pixels, **drawn, **blend,
        "OUTPUTS": len(models), "USED": _used(row), "CLAMP": row.lo != -math.inf or row.hi != math.inf,
        "LAYOUT": kind, "BLOCK": tile.rows,
    }  # fmt: skip


def _dense(tensor: Tensor, x: Tensor) -> Tensor:
    """Of x's shape, contiguous, and no wider than float32."""
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    return tensor.expand(x.shape).contiguous()


def _noise(noise: Tensor | Draw | None, x: Tensor, prefix: str) -> dict[str, Any]:
    """The kernel's arguments for one noise: none, a tensor, or drawn in registers."""
    kind, given, keys, step, stream, shared = 0, None, None, 0, 0, False
    if isinstance(noise, Draw):
        kind, keys, shared = 2, device_keys(noise.seed, x.shape[0], x.device), noise.shared_frames
        step, stream = signed(noise.step), signed(stream_id(noise.stream))
    elif noise is not None:
        kind, given = 1, _dense(noise, x)
    upper = prefix.upper()
    return {
        f"p_{prefix}noise": given, f"p_{prefix}keys": keys, f"{prefix}step": step, f"{prefix}stream": stream,
        f"{upper}NOISE": kind, f"{upper}SHARED": shared and x.dim() == 5,
    }  # fmt: skip


def _blending(
    mask: Tensor | None, known: Tensor | None, noise: Tensor | Draw | None, known_used: bool, x: Tensor
) -> dict[str, Any]:
    """The kernel's arguments for the known region."""
    if mask is None or known is None:
        nothing = {"p_mask": None, "mask_stride": 0, "mask_period": 1, "p_known": None, "BLEND": False}
        return {**nothing, **_noise(None, x, "known_")}
    if mask.dtype == torch.bool:
        mask = mask.view(torch.uint8)
    elif mask.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.uint8):
        mask = mask.float()
    mask = mask[(None,) * (x.dim() - mask.dim())]
    # Where it is the same for all channels, say, it is read once a channel and not copied out.
    whole = x.dim()
    while whole > 1 and mask.shape[whole - 1] == x.shape[whole - 1]:
        whole -= 1
    if any(length != 1 for length in mask.shape[1:whole]):
        mask = mask.expand(mask.shape[0], *x.shape[1:])
    period = mask.numel() // mask.shape[0]
    return {
        "p_mask": mask.contiguous(), "mask_stride": 0 if mask.shape[0] == 1 else period, "mask_period": period,
        "p_known": _dense(known, x) if known_used else None, "BLEND": True, **_noise(noise, x, "known_"),
    }  # fmt: skip


def _used(row: Coefficients) -> int:
    """One bit for each number of the row whose term exists."""
    bits = sum(1 << bit for name, bit in _BITS.items() if used(getattr(row, name)))
    return bits + sum(1 << (11 + i) for i, number in enumerate(row.ch) if used(number))


@lru_cache(maxsize=1024)
def _row(row: Coefficients, weights: tuple[Number, ...], rescale: float, device: torch.device) -> Tensor:
    """The kernel's numbers, float32 [1 or B, 20], on the device.

    Cached: a step that comes again, in the next picture or in a benchmark, costs no copy to the device;
    a new one costs one small copy that nothing waits for.
    """
    history = (*row.ch, *[0.0] * (MAX_HISTORY - len(row.ch)))
    columns: list[Number] = [
        *weights, *[0.0] * (4 - len(weights)), row.ax, row.am, row.lo, row.hi, row.cx, row.cg, row.c0,
        *history, row.cz, row.k0, row.kz, row.next_scale, rescale, 1.0 - rescale,
    ]  # fmt: skip
    count = max(len(c) if isinstance(c, tuple) else 1 for c in columns)
    rows = [[c[i] if isinstance(c, tuple) else c for c in columns] for i in range(count)]
    numbers = torch.tensor(rows, dtype=torch.float32, pin_memory=device.type == "cuda")
    return numbers.to(device, non_blocking=True)


def _rescaling(step: Mapping[str, Any], batch: int, arch: str) -> Tensor:
    """The factor of each sample's guidance, float32 [B]: two small launches, and no number leaves the device."""
    from mezzotint_kernels._triton.step import _factor_kernel, _moments_kernel

    tile = find("guidance_moments", 0, arch) or Tile(MOMENTS_BLOCK)
    moments = moments_arguments(step, batch)
    factor = factor_arguments(step, moments)
    options = {"enable_fp_fusion": False, **tile.options(arch)}
    _moments_kernel[(batch * moments["parts"],)](**moments, **options)
    _factor_kernel[(batch,)](**factor, **options)
    return factor["p_factor"]


def moments_arguments(step: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """The arguments of `_moments_kernel`, from those of the step."""
    shared = ("p_m0", "p_m1", "p_m2", "p_m3", "p_row", "n", "row_stride", "OUTPUTS")
    parts = math.ceil(step["n"] / MOMENTS_BLOCK)
    found = torch.empty((batch, 4, parts), dtype=torch.float32, device=step["p_m0"].device)
    levels = MOMENTS_BLOCK.bit_length() - 1
    return {**{name: step[name] for name in shared}, "p_parts": found, "parts": parts, "LEVELS": levels}


def factor_arguments(step: Mapping[str, Any], moments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `_factor_kernel`."""
    parts, count = moments["p_parts"], moments["parts"]
    factor = torch.empty((parts.shape[0],), dtype=torch.float32, device=parts.device)
    return {
        "p_parts": parts, "p_row": step["p_row"], "p_factor": factor, "n": step["n"],
        "row_stride": step["row_stride"], "parts": count,
        "BLOCK": MOMENTS_BLOCK, "LEVELS": power_of_two(count).bit_length() - 1,
    }  # fmt: skip
