"""Attention over the frames of a clip, at each pixel: [B, F, P, H, D] as it lies in memory.

    out[b, :, p, h] = softmax(q k^T scale + bias) v        over the frames of one pixel and head

A video model holds its clips as [B, F, P, C], C = H * D; the usual way to attend over frames permutes q, k, v and
the result, a copy each. The Triton kernel (`_triton/temporal.py`) reads by strides and takes several pixels a
program. On a CPU, and for clips of more than 32 frames, torch's scaled-dot-product attention does it, on views.
A frame whose every key has a bias of -inf attends to nothing: zeros, and no gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint_kernels.dense_launch import head_split
from mezzotint_kernels.dispatch import architecture, choose
from mezzotint_kernels.layout import aligned, dot_precision, unit
from mezzotint_kernels.registration import register
from mezzotint_kernels.tiles import Tile

__all__ = [
    "MAX_FRAMES",
    "temporal_arguments",
    "temporal_attention",
    "temporal_attention_reference",
    "temporal_kernel",
]

MAX_FRAMES = 32
"""What the kernel takes in one block; longer clips take the reference."""

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_BACKWARD_LOGITS = 1 << 24
"""Logits held at once in the backward pass, for one sample: its memory does not grow with the picture."""


def temporal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention over F of [B, F, P, H, D]: samples, frames, pixels, heads, head size. Contiguous, of q's shape.

    q, k, v: one shape, floating dtype and device; unit last stride, any others: `linear(x).unflatten(-1, (H, D))`
        of x [B, F, P, C] is right as it is.
    causal: frame f attends to frames 0..f.
    bias: floating, [F, F] (frame that asks, frame asked), [H, F, F] or [B, H, F, F], where H and B may be 1. Added
        to the scaled logits: relative positions, or -inf for frames not to be seen.
    scale: above 0; 1 / sqrt(D) by default.
    Gradients go to q, k, v and bias; the backward pass is plain torch and computes the probabilities again.
    Raises: ValueError: shapes, dtypes, devices or strides do not fit, or a dimension is 0 (a clip of no frames).
    """
    bias, scale = _check(q, k, v, bias, scale)
    out: Tensor = _call(q, k, v, bias, causal, scale)
    return out


def temporal_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """`temporal_attention` by torch's scaled-dot-product attention, on any device and for any number of frames."""
    bias, scale = _check(q, k, v, bias, scale)
    return _reference(q, k, v, bias, causal, scale)


def _check(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None
) -> tuple[Tensor | None, float]:
    """The bias with four dimensions, and the scale."""
    if q.dim() != 5 or not q.shape == k.shape == v.shape or 0 in q.shape:
        raise ValueError(
            f"q, k, v of shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}; wanted one shape "
            "[samples, frames, pixels, heads, size], no dimension 0"
        )
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dtype not in _DTYPES or x.dtype != q.dtype or x.device != q.device:
            raise ValueError(
                f"{name} is {x.dtype} on {x.device}; wanted q, k and v of one floating dtype (float16, bfloat16, "
                f"float32, float64) on one device (q: {q.dtype} on {q.device})"
            )
        if x.stride(-1) != 1 and x.shape[-1] > 1:
            raise ValueError(f"{name} has strides {x.stride()}; wanted its last dimension to lie together (1)")
    if bias is not None:
        bias = _four_dimensions(bias, q)
    found = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if not 0.0 < found < math.inf:
        raise ValueError(f"scale is {scale}; wanted a finite number above 0")
    return bias, found


def _four_dimensions(bias: Tensor, q: Tensor) -> Tensor:
    samples, frames, _, heads, _ = q.shape
    full = (samples, heads, frames, frames)
    if not bias.is_floating_point() or bias.device != q.device:
        raise ValueError(f"bias is {bias.dtype} on {bias.device}; wanted a floating dtype on {q.device}")
    fits = 2 <= bias.dim() <= 4 and bias.shape[-2:] == full[2:]
    fits = fits and all(a in (1, b) for a, b in zip(bias.shape[::-1], full[::-1], strict=False))
    if not fits:
        raise ValueError(
            f"bias of shape {tuple(bias.shape)}; wanted [{frames}, {frames}] (frames), "
            f"[{heads}, {frames}, {frames}] (heads) or [{samples}, {heads}, {frames}, {frames}] (samples)"
        )
    return bias[(None,) * (4 - bias.dim())]


def _reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float) -> Tensor:
    """One sample at a time, so that every layout is a view of four dimensions, for which torch needs no copy."""
    out = q.new_empty(q.shape)
    mask = None if bias is None else _mask(bias, causal, q.dtype).expand(q.shape[0], -1, -1, -1)
    for b in range(q.shape[0]):
        q_b, k_b, v_b = (x[b].permute(1, 2, 0, 3) for x in (q, k, v))  # [P, H, F, D]
        mask_b = None if mask is None else mask[b, None]
        found = F.scaled_dot_product_attention(
            q_b, k_b, v_b, mask_b, is_causal=causal and mask is None, scale=scale
        )
        if mask_b is not None:  # not every backend of torch gives zeros there
            found = found.masked_fill((mask_b == -math.inf).all(-1, keepdim=True), 0.0)
        out[b] = found.permute(2, 0, 1, 3)
    return out


def _mask(bias: Tensor, causal: bool, dtype: torch.dtype) -> Tensor:
    """Bias and causality as one additive mask [B or 1, H or 1, F, F]."""
    mask = bias.to(dtype)
    return mask.masked_fill(_future(bias), -math.inf) if causal else mask


def _future(like: Tensor) -> Tensor:
    """[F, F]: true where the frame asked is later than the frame that asks."""
    return torch.ones(like.shape[-2:], dtype=torch.bool, device=like.device).triu(1)


# ---- mezzotint::temporal_attention


def _forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float) -> Tensor:
    kernel, obstacle = temporal_kernel(q.shape[1])
    choice = choose("temporal_attention", q, head_dim=q.shape[-1], kernel=kernel, obstacle=obstacle)
    if choice.backend == "torch":
        return _reference(q, k, v, bias, causal, scale)
    return _launch(q, k, v, bias, causal, scale, choice.tile)


def temporal_kernel(frames: int) -> tuple[str, str | None]:
    """The name in the table of tiles, and what keeps the kernel from so many frames."""
    if frames > MAX_FRAMES:
        return "temporal", f"a clip of more than {MAX_FRAMES} frames"
    return ("temporal" if frames <= 16 else "temporal_32"), None


def _launch(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float, tile: Tile | None
) -> Tensor:
    from mezzotint_kernels._triton.temporal import _fwd_kernel

    tile = tile or Tile(2)  # the interpreter's: a padded pixel costs it as much as a real one
    arch = architecture(q.device)
    out = q.new_empty(q.shape)
    target = aligned(out)
    arguments = temporal_arguments(q, k, v, bias, target, causal, scale, tile, arch)
    samples, _, pixels, heads, _ = q.shape
    grid = (samples * heads * -(-pixels // tile.rows),)
    # Scale and subtraction are one fused multiply-add, and Triton's default is about to change.
    _fwd_kernel[grid](**arguments, **tile.options(arch), enable_fp_fusion=True)
    return out if target is out else out.copy_(target)


def temporal_arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    out: Tensor,
    causal: bool,
    scale: float,
    tile: Tile,
    arch: str,
) -> dict[str, Any]:
    """Of `_triton.temporal._fwd_kernel`, by name. bias: [B or 1, H or 1, F, F]. The tensors may be meta ones."""
    _, frames, pixels, heads, size = q.shape
    step, (first, second) = unit(q), head_split(size)
    q, k, v = aligned(q), aligned(k), aligned(v)
    if bias is not None:
        # Float32, so that the kernel's few loads of it are no 2-byte ones.
        bias = bias.to(torch.float32).contiguous()
    found: dict[str, Any] = {"p_q": q, "p_k": k, "p_v": v, "p_bias": bias, "p_o": out, "scale": scale}
    for name, x in (("q", q), ("k", k), ("v", v), ("o", out)):
        found |= {f"s_{name}{axis}": stride // step for axis, stride in zip("bfph", x.stride(), strict=False)}
    for axis, dimension in (("b", 0), ("h", 1)):
        found[f"s_b{axis}"] = 0 if bias is None or bias.shape[dimension] == 1 else bias.stride(dimension)
    found |= {"P": pixels, "H": heads, "F": frames, "BLOCKS": -(-pixels // tile.rows)}
    found |= {"D": size, "D1": first, "D2": second, "FP": 16 if frames <= 16 else 32, "PB": tile.rows}
    found |= {"VEC": step, "CAUSAL": causal, "BIAS": bias is not None}
    return found | {"PREC": dot_precision(q.dtype, arch)}


def _fake(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float) -> Tensor:
    return q.new_empty(q.shape)


# ---- the gradient


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, bias, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, bias)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, bias = ctx.saved_tensors
    dq, dk, dv, dbias = _call_backward(grad, q, k, v, bias, ctx.causal, ctx.scale)
    return dq, dk, dv, None if bias is None else dbias, None, None


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The softmax's derivative written out, on the probabilities computed again, a block of pixels at a time."""
    wide = torch.promote_types(q.dtype, torch.float32)
    samples, frames, pixels, heads, _ = q.shape
    dq, dk, dv = (q.new_empty(q.shape) for _ in range(3))
    dmask = q.new_zeros((samples, heads, frames, frames), dtype=wide)
    mask = dmask if bias is None else bias.to(wide).expand(dmask.shape)
    if causal:
        mask = mask.masked_fill(_future(mask), -math.inf)
    step = max(1, _BACKWARD_LOGITS // (heads * frames * frames))
    for b in range(samples):
        for start in range(0, pixels, step):
            part = slice(start, start + step)
            g_b, q_b, k_b, v_b = (x[b, :, part].permute(1, 2, 0, 3).to(wide) for x in (grad, q, k, v))
            *pieces, dlogits = _softmax_gradients(g_b, q_b, k_b, v_b, mask[b], scale)
            for whole, piece in zip((dq, dk, dv), pieces, strict=True):
                whole[b, :, part] = piece.permute(2, 0, 1, 3)
            if bias is not None:
                dmask[b] += dlogits.sum(0)
    dbias = q.new_empty(0, dtype=wide) if bias is None else dmask.sum_to_size(bias.shape).to(bias.dtype)
    return dq, dk, dv, dbias


def _softmax_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv [P, H, F, D] and dlogits [P, H, F, F]."""
    nothing = (mask == -math.inf).all(-1, keepdim=True)  # to attend to: NaN in the softmax, and no gradient
    p = (q @ k.mT * scale + mask).softmax(-1).masked_fill(nothing, 0.0)
    dp = grad @ v.mT
    dlogits = p * (dp - (dp * p).sum(-1, keepdim=True))
    return dlogits @ k * scale, dlogits.mT @ q * scale, p.mT @ grad, dlogits


def _backward_fake(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = torch.promote_types(q.dtype, torch.float32)
    dbias = q.new_empty(0, dtype=wide) if bias is None else bias.new_empty(bias.shape)
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape), dbias


_call = register(
    "temporal_attention",
    "(Tensor q, Tensor k, Tensor v, Tensor? bias, bool causal, float scale) -> Tensor",
    _forward,
    _fake,
    _gradients,
    _keep,
)
_call_backward = register(
    "temporal_attention_backward",
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? bias, bool causal, float scale) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
