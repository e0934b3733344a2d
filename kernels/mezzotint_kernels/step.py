"""One step of any sampler, as one row of numbers and one pass over the tensors.

Every linear sampler update is

    g   = sum_k w_k m_k                                 guidance: the model's outputs, weighted
    x0  = clamp(ax x + am g, lo, hi)                    the clean picture, as the model sees it
    out = cx x + cg g + c0 x0 + sum_j ch_j h_j + cz z   the update; h: tensors of earlier steps
    out = m out + (1 - m) (k0 known + kz z')            with a mask: the known picture outside it

`noise_step_reference` is this in plain torch, and the path that a CPU takes. The fused kernel gives
the same numbers to the last bit: the order of the operations is as written here, arithmetic is in
float32, and there is one rounding at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint_kernels.coefficients import MAX_HISTORY, Coefficients, Number
from mezzotint_kernels.dispatch import choose
from mezzotint_kernels.philox import Draw
from mezzotint_kernels.step_check import check_step, used

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_HISTORY", "Coefficients", "Number", "StepResult", "guided", "noise_step", "noise_step_reference"]

MOMENTS_BLOCK = 1024
"""Neighbours whose moments are taken together, where guidance is rescaled."""


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
        (mask: [B, 1, H, W]). Any strides; the same device throughout.
    outputs, weights, rescale: as in `guided`.
    history: as many tensors as the row has `ch`, newest first, at most three.
    noise, known_noise: tensors, or a `Draw` of counter-based numbers; not looked at where `cz`, or
        `kz`, is 0.
    out_dtype: of `x` and `x0` in the result; x's own by default.
    next_dtype: asks for `next`, in that dtype.
    Arithmetic is in float32, or in float64 if x is float64. Where a gradient is wanted, and in
    float64, the reference runs on every device.
    Raises: ValueError: something that the row needs is missing, shapes, dtypes or devices do not
        fit, a tensor is empty, or a coefficient is not finite.
    """
    tensors = [*outputs, *history, *(t for t in (noise, mask, known, known_noise) if isinstance(t, Tensor))]
    check_step(x, outputs, row, weights, rescale, history, noise, mask, known, known_noise, out_dtype, next_dtype)
    arguments = {
        "weights": weights, "rescale": rescale, "history": history, "noise": noise, "mask": mask,
        "known": known, "known_noise": known_noise, "out_dtype": out_dtype, "next_dtype": next_dtype,
    }  # fmt: skip
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *tensors))
    if differentiated or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return noise_step_reference(x, outputs, row, **arguments)
    choice = choose("noise_step", x, obstacle=_obstacle(x, outputs, rescale))
    if choice.backend == "torch":
        return noise_step_reference(x, outputs, row, **arguments)
    from mezzotint_kernels.step_launch import launch_step

    return StepResult(*launch_step(choice.tile, x, outputs, row, **arguments))


def noise_step_reference(
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
    """`noise_step` in plain torch, on any device; differentiable in every tensor. Checks nothing."""
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    wide = x.to(acc)
    g = guided([m.to(acc) for m in outputs], weights, rescale)
    x0 = _sum([(row.ax, wide), (row.am, g)], x, acc)
    if row.lo != -math.inf or row.hi != math.inf:
        if isinstance(row.lo, tuple) or isinstance(row.hi, tuple):
            x0 = x0.maximum(_bound(row.lo, x, acc)).minimum(_bound(row.hi, x, acc))
        else:
            x0.clamp_(row.lo, row.hi)
    terms = [(row.cx, wide), (row.cg, g), (row.c0, x0)]
    terms += [(c, h.to(acc)) for c, h in zip(row.ch, history, strict=True) if used(c)]
    if used(row.cz):
        terms.append((row.cz, _noise(noise, x, acc)))
    out = _sum(terms, x, acc)
    if mask is not None and known is not None:
        kept = [(row.k0, known.to(acc).expand_as(x))]
        if used(row.kz):
            kept.append((row.kz, _noise(known_noise, x, acc)))
        inside = mask.to(acc)
        out *= inside
        out += _sum(kept, x, acc).mul_(1.0 - inside)
    result_dtype = out_dtype or x.dtype
    following = None
    if next_dtype is not None:
        following = (out * _number(row.next_scale, x, acc)).to(next_dtype)
    return StepResult(out.to(result_dtype), x0.to(result_dtype), following)


def guided(outputs: Sequence[Tensor], weights: Sequence[Number], rescale: float = 0.0) -> Tensor:
    """The weighted sum of a model's outputs, with guidance rescaling.

    outputs: [B, ...] each. One output of weight 1 is returned itself, not a copy.
    rescale: 0..1; blends towards the sum scaled, sample by sample, to the standard deviation of
        outputs[0]. Source: Lin et al. 2023, "Common diffusion noise schedules and sample steps are
        flawed", eq. 15 and 16.
    """
    first = outputs[0]
    acc = first.dtype
    if len(outputs) == 1 and isinstance(weights[0], (int, float)) and weights[0] == 1.0:
        return first
    total = first * _number(weights[0], first, acc)
    for output, weight in zip(outputs[1:], weights[1:], strict=True):
        total += output * _number(weight, first, acc)
    if rescale == 0.0 or len(outputs) == 1:
        return total
    factor = _spread_ratio(first, total) * rescale + (1.0 - rescale)
    return total * factor.view(-1, *[1] * (total.dim() - 1))


def _spread_ratio(first: Tensor, total: Tensor) -> Tensor:
    """Standard deviation of each sample of `first` over that of `total`, [B]."""
    # Through float64: float32 sqrt on a CPU is not correctly rounded in every build of torch.
    return (_spread(first) / _spread(total)).double().sqrt().to(first.dtype)


def _spread(x: Tensor) -> Tensor:
    """Sum of the squared deviations from each sample's mean, [B]: from blocks, each about its own mean.

    In one order on every device, which is the kernel's too. After Chan, Golub and LeVeque 1983,
    "Algorithms for computing the sample variance", eq. 2.1.
    """
    flat = x.flatten(1)
    size = flat.shape[1]
    blocks = torch.nn.functional.pad(flat, (0, -size % MOMENTS_BLOCK)).unflatten(1, (-1, MOMENTS_BLOCK))
    # Tensors, also the sizes: by a Python number, CUDA multiplies with the reciprocal.
    count = torch.full((blocks.shape[1],), MOMENTS_BLOCK, dtype=x.dtype, device=x.device)
    count[-1] = size - (blocks.shape[1] - 1) * MOMENTS_BLOCK
    sums = tree_sum(blocks)
    means = sums / count
    deviations = (blocks - means[..., None]).flatten(1)
    deviations[:, size:] = 0
    within = tree_sum((deviations * deviations).view(blocks.shape))
    off = means - tree_sum(sums)[:, None] / torch.full_like(count[0], size)
    return tree_sum(within + off * off * count)


def tree_sum(x: Tensor) -> Tensor:
    """Sum over the last dimension, neighbours first, then neighbouring sums: one order on every device."""
    while x.shape[-1] > 1:
        if x.shape[-1] % 2:
            x = torch.nn.functional.pad(x, (0, 1))
        x = x[..., 0::2] + x[..., 1::2]
    return x[..., 0]


def _sum(terms: Sequence[tuple[Number, Tensor]], like: Tensor, acc: torch.dtype) -> Tensor:
    """The sum of number * tensor, in order, as a new tensor. A term with number 0 is left out, finite or not.

    Adds in place: a tensor less to allocate for each term. `torch.add(alpha=)` would do without the
    product as well, but contracts it to a fused multiply-add on some CPUs.
    """
    total: Tensor | None = None
    for number, tensor in terms:
        if used(number):
            term = tensor * _number(number, like, acc)
            if total is None:
                total = term
            else:
                total += term
    return torch.zeros_like(like, dtype=acc) if total is None else total


def _number(number: Number, like: Tensor, acc: torch.dtype) -> Tensor | float:
    """The number, to be rounded to `acc` once; one for each sample as a tensor that broadcasts over `like`."""
    if not isinstance(number, tuple):
        return number
    return torch.tensor(number, dtype=acc, device=like.device).view(-1, *[1] * (like.dim() - 1))


def _bound(number: Number, like: Tensor, acc: torch.dtype) -> Tensor:
    bound = _number(number, like, acc)
    return bound if isinstance(bound, Tensor) else torch.tensor(bound, dtype=acc, device=like.device)


def _noise(noise: Tensor | Draw | None, like: Tensor, acc: torch.dtype) -> Tensor:
    if isinstance(noise, Draw):
        return noise.normals(like.shape, device=like.device).to(acc)
    assert noise is not None  # check_step has seen to it
    return noise.to(acc).expand_as(like)


def _obstacle(x: Tensor, outputs: Sequence[Tensor], rescale: float) -> str | None:
    """What the kernel cannot do about a step."""
    if len(outputs) > 4:
        return f"{len(outputs)} outputs; the kernel takes at most 4"
    size, most = x.numel() // x.shape[0], 2**24 if rescale else 2**30
    if size > most:
        return f"{size} numbers a sample; the kernel takes {most}"
    return None
