"""What a step refuses, before anything is launched: each message says what was wanted and what came."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint_kernels.coefficients import MAX_HISTORY, Coefficients, Number
from mezzotint_kernels.philox import Draw

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_step", "used"]


def used(number: Number) -> bool:
    """Whether a term with this coefficient exists: it is left out where the number is 0 for every sample."""
    return any(number) if isinstance(number, tuple) else number != 0.0


def check_step(
    x: Tensor,
    outputs: Sequence[Tensor],
    row: Coefficients,
    weights: Sequence[Number],
    rescale: float,
    history: Sequence[Tensor],
    noise: Tensor | Draw | None,
    mask: Tensor | None,
    known: Tensor | None,
    known_noise: Tensor | Draw | None,
    out_dtype: torch.dtype | None,
    next_dtype: torch.dtype | None,
) -> None:
    """The arguments of `noise_step`. Raises: ValueError."""
    _sample(x)
    _counts(outputs, weights, row, history)
    for what, tensors in (("an output", outputs), ("a history tensor", history)):
        for tensor in tensors:
            _fits(what, tensor, x, broadcast=False)
    check_numbers = _numbers.__wrapped__ if torch.compiler.is_compiling() else _numbers
    check_numbers(row, tuple(weights), rescale, x.shape[0])
    if used(row.cz):
        _noise("noise", noise, x)
    if (mask is None) != (known is None):
        raise ValueError(
            "a mask needs the known picture that holds outside it, and the other way round; "
            f"got known={_brief(known)} and mask={_brief(mask)}"
        )
    if mask is not None and known is not None:
        _fits("mask", mask, x, numbers=False)
        _fits("known", known, x)
        if used(row.kz):
            _noise("known_noise", known_noise, x)
    for name, dtype in (("out_dtype", out_dtype), ("next_dtype", next_dtype)):
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"{name} must be a float dtype; got {dtype}")


def _sample(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(f"x must be a tensor of floats; got {_brief(x)}")
    if x.dim() == 0 or x.numel() == 0:
        raise ValueError(f"x must be [B, ...] and hold numbers; got shape {tuple(x.shape)}")


def _counts(
    outputs: Sequence[Tensor], weights: Sequence[Number], row: Coefficients, history: Sequence[Tensor]
) -> None:
    if not outputs or len(outputs) != len(weights):
        raise ValueError(f"got {len(outputs)} outputs and {len(weights)} weights; wanted as many of each")
    if len(row.ch) != len(history) or len(history) > MAX_HISTORY:
        raise ValueError(
            f"got {len(history)} history tensors and {len(row.ch)} coefficients; "
            f"wanted as many of each, at most {MAX_HISTORY}"
        )


def _fits(what: str, tensor: Tensor, x: Tensor, *, broadcast: bool = True, numbers: bool = True) -> None:
    """Shape, device, and (numbers) a float dtype."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{what} must be a tensor; got {_brief(tensor)}")
    if tensor.shape != x.shape and not (broadcast and _broadcasts(tensor.shape, x.shape)):
        wanted = f"{'one that broadcasts to ' if broadcast else ''}{tuple(x.shape)}"
        raise ValueError(f"{what} of shape {tuple(tensor.shape)}; wanted {wanted}")
    if tensor.device != x.device:
        raise ValueError(f"{what} is on {tensor.device}; wanted it on {x.device}, where x is")
    if tensor.is_complex() or (numbers and not tensor.is_floating_point()):
        raise ValueError(f"{what} must hold floats; got {tensor.dtype}")


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    if len(shape) > len(to):
        return False
    return all(a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False))


def _noise(name: str, noise: Tensor | Draw | None, x: Tensor) -> None:
    if noise is None:
        raise ValueError(f"the row adds noise, but {name} is None")
    if not isinstance(noise, Draw):
        _fits(name, noise, x)


@lru_cache(maxsize=4096)
def _numbers(row: Coefficients, weights: tuple[Number, ...], rescale: float, batch: int) -> None:
    """Finite coefficients, one for all or one for each sample. A row comes many times: cached."""
    if not 0.0 <= rescale <= 1.0:
        raise ValueError(f"rescale must be in 0..1; got {rescale}")
    named: dict[str, Number] = {
        name: getattr(row, name)
        for name in ("cx", "cg", "c0", "cz", "ax", "am", "lo", "hi", "k0", "kz", "next_scale")
    }
    named |= {f"ch[{i}]": number for i, number in enumerate(row.ch)}
    named |= {f"weights[{i}]": number for i, number in enumerate(weights)}
    for name, number in named.items():
        values = number if isinstance(number, tuple) else (number,)
        if isinstance(number, tuple) and len(number) != batch:
            raise ValueError(f"{name} has {len(number)} numbers; wanted one, or one for each of {batch} samples")
        for value in values:
            if math.isnan(value) or (math.isinf(value) and name not in ("lo", "hi")):
                raise ValueError(f"{name} must be finite; got {number}")


def _brief(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}, {tuple(value.shape)}"
    return repr(value)
