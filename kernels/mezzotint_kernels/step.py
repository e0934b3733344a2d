"""One step of any sampler, as one row of numbers and one pass over the tensors.

Every linear sampler update is

    g   = sum_k w_k m_k                                 guidance: the model's outputs, weighted
    x0  = clamp(ax x + am g, lo, hi)                    the clean picture, as the model sees it
    out = cx x + cg g + c0 x0 + sum_j ch_j h_j + cz z   the update; h: tensors of earlier steps
    out = m out + (1 - m) (k0 known + kz z')            with a mask: the known picture outside it

This file is the reference in plain torch and the path that a CPU takes. A fused kernel must give
the same numbers: the order of the operations is as written here, arithmetic is in float32, and
there is one rounding at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint_kernels.coefficients import MAX_HISTORY, Coefficients, Number
from mezzotint_kernels.philox import Draw

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_HISTORY", "Coefficients", "Number", "StepResult", "guided", "noise_step"]


@dataclass(frozen=True)
class StepResult:
    """What a step gives.

    x: the new sample. x0: the clean picture that it assumed.
    next: the model's next input, if asked for.
    """

    x: Tensor
    x0: Tensor
    next: Tensor | None = None


def noise_step(
    x: Tensor,
    outputs: Sequence[Tensor],
    row: Coefficients,
    *,
    weights: Sequence[Number] = (1.0,),
    rescale: float = 0.0,
    history: Sequence[Tensor] = (),
    noise: Tensor | Draw | None = None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
    known_noise: Tensor | Draw | None = None,
    out_dtype: torch.dtype | None = None,
    next_dtype: torch.dtype | None = None,
) -> StepResult:
    """Guidance, prediction type, clamp, update, noise, mask blend and cast in one step.

    x: [B, ...], any float dtype; outputs and history have its shape, the others broadcast to it
        (mask: [B, 1, H, W]).
    outputs, weights, rescale: as in `guided`.
    history: as many tensors as the row has `ch`, newest first, at most three.
    noise, known_noise: tensors, or a `Draw` of counter-based numbers; not looked at where `cz`, or
        `kz`, is 0.
    out_dtype: of `x` and `x0` in the result; x's own by default.
    next_dtype: asks for `next`, in that dtype.
    Arithmetic is in float32, or in float64 if x is float64.
    Raises: ValueError: something that the row needs is missing, or shapes do not fit.
    """
    _check(x, outputs, row, weights, history)
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    wide = x.to(acc)
    g = guided([m.to(acc) for m in outputs], weights, rescale)
    x0 = _sum([(row.ax, wide), (row.am, g)], x, acc)
    if row.lo != -math.inf or row.hi != math.inf:
        x0 = x0.maximum(_number(row.lo, x, acc)).minimum(_number(row.hi, x, acc))
    terms = [(row.cx, wide), (row.cg, g), (row.c0, x0)]
    terms += [(c, h.to(acc)) for c, h in zip(row.ch, history, strict=True) if _used(c)]
    if _used(row.cz):
        terms.append((row.cz, _noise(noise, x, acc, "noise")))
    out = _sum(terms, x, acc)
    if mask is not None:
        out = _blend(out, mask, known, known_noise, row, acc)
    result_dtype = out_dtype or x.dtype
    following = None
    if next_dtype is not None:
        following = (out * _number(row.next_scale, x, acc)).to(next_dtype)
    return StepResult(out.to(result_dtype), x0.to(result_dtype), following)


def guided(outputs: Sequence[Tensor], weights: Sequence[Number], rescale: float = 0.0) -> Tensor:
    """The weighted sum of a model's outputs, with guidance rescaling.

    rescale: 0..1; blends towards the sum scaled, sample by sample, to the standard deviation of
        outputs[0]. Source: Lin et al. 2023, "Common diffusion noise schedules and sample steps are
        flawed", eq. 15 and 16.
    """
    first = outputs[0]
    acc = first.dtype
    total = first * _number(weights[0], first, acc)
    for output, weight in zip(outputs[1:], weights[1:], strict=True):
        total = total + output * _number(weight, first, acc)
    if rescale == 0.0 or len(outputs) == 1:
        return total
    over = tuple(range(1, total.dim()))
    ratio = first.std(dim=over, keepdim=True) / total.std(dim=over, keepdim=True)
    return total * (ratio * rescale + (1.0 - rescale))


def _blend(
    out: Tensor,
    mask: Tensor,
    known: Tensor | None,
    known_noise: Tensor | Draw | None,
    row: Coefficients,
    acc: torch.dtype,
) -> Tensor:
    if known is None:
        raise ValueError("a mask needs the known picture that holds outside it; got known=None")
    terms = [(row.k0, known.to(acc))]
    if _used(row.kz):
        terms.append((row.kz, _noise(known_noise, out, acc, "known_noise")))
    inside = mask.to(acc)
    return inside * out + (1.0 - inside) * _sum(terms, out, acc)


def _sum(terms: Sequence[tuple[Number, Tensor]], like: Tensor, acc: torch.dtype) -> Tensor:
    """The sum of number * tensor, in order. A term with number 0 is left out, finite or not."""
    total: Tensor | None = None
    for number, tensor in terms:
        if _used(number):
            term = tensor * _number(number, like, acc)
            total = term if total is None else total + term
    return torch.zeros_like(like, dtype=acc) if total is None else total


def _number(number: Number, like: Tensor, acc: torch.dtype) -> Tensor:
    """The number as a tensor that broadcasts over `like` [B, ...], rounded to `acc` once."""
    value = torch.tensor(number, dtype=acc, device=like.device)
    return value.view(-1, *[1] * (like.dim() - 1)) if isinstance(number, tuple) else value


def _used(number: Number) -> bool:
    return any(number) if isinstance(number, tuple) else number != 0.0


def _noise(noise: Tensor | Draw | None, like: Tensor, acc: torch.dtype, name: str) -> Tensor:
    if noise is None:
        raise ValueError(f"the row adds noise, but {name} is None")
    if isinstance(noise, Draw):
        return noise.normals(like.shape, device=like.device).to(acc)
    return noise.to(acc)


def _check(
    x: Tensor,
    outputs: Sequence[Tensor],
    row: Coefficients,
    weights: Sequence[Number],
    history: Sequence[Tensor],
) -> None:
    if not outputs or len(outputs) != len(weights):
        raise ValueError(f"got {len(outputs)} outputs and {len(weights)} weights; wanted as many of each")
    if len(row.ch) != len(history) or len(history) > MAX_HISTORY:
        raise ValueError(
            f"got {len(history)} history tensors and {len(row.ch)} coefficients; "
            f"wanted as many of each, at most {MAX_HISTORY}"
        )
    for what, tensors in (("an output", outputs), ("a history tensor", history)):
        for tensor in tensors:
            if tensor.shape != x.shape:
                got, wanted = tuple(tensor.shape), tuple(x.shape)
                raise ValueError(f"{what} of shape {got}; wanted {wanted}")
