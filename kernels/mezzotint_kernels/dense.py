"""Attention over [batch, heads, tokens, size], in any layout with a unit last stride, and its gradients.

    out = softmax(q k^T scale + bias + key_bias) v

On a CPU, and for plain calls on a GPU, this is torch's scaled-dot-product attention; `dispatch.choose` says which.
The Triton kernels (`_triton/attention.py`, `_triton/attention_backward.py`) are registered as
`mezzotint::attention`, which also returns the log-sum-exp of the scores, with `mezzotint::attention_backward` as
its gradient. A query whose every key has a bias of -inf attends to nothing: zeros, a log-sum-exp of -inf, no
gradient.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint_kernels.dense_launch import Call, kernel_name, launch_backward, launch_forward
from mezzotint_kernels.dense_reference import backward_reference, forward_reference, joined_biases
from mezzotint_kernels.dispatch import choose
from mezzotint_kernels.registration import register

__all__ = ["AttentionResult", "attention", "attention_reference", "attention_with_lse"]

DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


class AttentionResult(NamedTuple):
    """out: as `attention` gives it. lse: [B, H, M], float32 (float64 for float64), natural logarithm."""

    out: Tensor
    lse: Tensor


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """softmax(q k^T scale + bias + key_bias) v: [B, H, M, D], laid out in memory as q is.

    q: [B, H, M, D]; k, v: [B, H, N, D]; one floating dtype and device, unit last stride. A [B, N, H, D] tensor
        transposed is as good as a contiguous one: nothing is copied.
    bias: floating, broadcasts to [B, H, M, N]; key_bias: floating, [B, N] or [B, H, N], a leading dimension may
        be 1. Both are added to the scaled scores; -inf takes a key away.
    scale: above 0; 1 / sqrt(D) by default.
    Gradients go to q, k and v, and to the biases where torch's own attention serves the call.
    Raises: ValueError: shapes, dtypes, devices or strides do not fit, or a dimension is 0.
    """
    factor = _check(q, k, v, bias, key_bias, scale)
    plain = bias is None and key_bias is None
    if plain:
        choice = choose("attention", q, head_dim=q.shape[3], plain=True)
    else:
        name, obstacle = kernel_name("forward", bias), _obstacle(bias, key_bias)
        choice = choose("attention", q, head_dim=q.shape[3], kernel=name, obstacle=obstacle)
    if choice.backend == "torch":
        mask = None if plain else joined_biases(q, bias, key_bias)
        return F.scaled_dot_product_attention(q, k, v, mask, scale=factor)
    return _attention(q, k, v, bias, key_bias, factor)[0]


def attention_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> AttentionResult:
    """`attention` with the log-sum-exp of each row's scores, by which partial results over keys can be merged.

    Gradients go to q, k and v through `out` alone.
    Raises: ValueError: as `attention`, or a bias wants a gradient.
    """
    factor = _check(q, k, v, bias, key_bias, scale)
    return AttentionResult(*_attention(q, k, v, bias, key_bias, factor))


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """`attention` by torch's scaled-dot-product attention, on any device."""
    factor = _check(q, k, v, bias, key_bias, scale)
    return F.scaled_dot_product_attention(q, k, v, joined_biases(q, bias, key_bias), scale=factor)


def _check(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_bias: Tensor | None, scale: float | None
) -> float:
    """The scale. Runs at every call: the common case is a few comparisons."""
    shape, keys = q.shape, k.shape
    fits = len(shape) == 4 and len(keys) == 4 and keys == v.shape and 0 not in shape and keys[2] != 0
    fits = fits and shape[0] == keys[0] and shape[1] == keys[1] and shape[3] == keys[3]
    if not fits:
        raise ValueError(
            f"q, k, v of shapes {tuple(shape)}, {tuple(keys)}, {tuple(v.shape)}; wanted [B, H, M, D], "
            "[B, H, N, D] and [B, H, N, D], no dimension 0"
        )
    dtype, device = q.dtype, q.device
    if dtype not in DTYPES or k.dtype != dtype or v.dtype != dtype or k.device != device or v.device != device:
        raise ValueError(
            f"q, k, v are {q.dtype} on {q.device}, {k.dtype} on {k.device}, {v.dtype} on {v.device}; wanted one "
            "floating dtype (float16, bfloat16, float32, float64) on one device"
        )
    if q.stride(3) != 1 or k.stride(3) != 1 or v.stride(3) != 1:
        raise ValueError(
            f"q, k, v have strides {q.stride()}, {k.stride()}, {v.stride()}; wanted the last dimension to lie "
            "together in memory (stride 1): call .contiguous() first"
        )
    if bias is not None:
        _check_bias("bias", bias, q, (*shape[:3], keys[2]))
    if key_bias is not None:
        _check_bias("key_bias", key_bias, q, (*shape[: key_bias.dim() - 1], keys[2]))
    if scale is None:
        return float(shape[3]) ** -0.5
    if not 0.0 < scale < math.inf:
        raise ValueError(f"scale is {scale}; wanted a finite number above 0")
    return float(scale)


def _check_bias(name: str, bias: Tensor, q: Tensor, full: tuple[int, ...]) -> None:
    if not bias.is_floating_point() or bias.device != q.device:
        raise ValueError(
            f"{name} is {bias.dtype} on {bias.device}; wanted a floating dtype on {q.device}: it is added to the "
            "scores, so a mask is 0 where a key may be looked at and -inf where not"
        )
    if name == "bias":
        ends = full[4 - min(bias.dim(), 4) :]
        fits = 1 <= bias.dim() <= 4 and all(a in (1, b) for a, b in zip(bias.shape, ends, strict=True))
        wanted = f"something that broadcasts to [B, H, M, N] = {list(full)}"
    else:
        fits = bias.dim() in (2, 3) and bias.shape[-1] == full[-1]
        fits = fits and all(a in (1, b) for a, b in zip(bias.shape, full, strict=True))
        wanted = f"[B, N] or [B, H, N] with B, H = {list(q.shape[:2])} and N = {full[-1]}"
    if not fits:
        raise ValueError(f"{name} of shape {tuple(bias.shape)}; wanted {wanted}")


def _obstacle(bias: Tensor | None, key_bias: Tensor | None) -> str | None:
    if torch.is_grad_enabled() and any(b is not None and b.requires_grad for b in (bias, key_bias)):
        return "a bias that needs a gradient"
    return None


# ---- mezzotint::attention and mezzotint::attention_backward


def _forward(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    choice = choose("attention_with_lse", q, head_dim=q.shape[3], kernel=kernel_name("forward", bias))
    if choice.backend == "torch":
        return forward_reference(q, k, v, bias, key_bias, scale)
    return launch_forward(Call(q, k, v, bias, key_bias, scale), choice.tile)


def _forward_fake(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(q.dtype, torch.float32)
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=wide)


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    kv, dq = (
        choose("attention_with_lse", q, head_dim=q.shape[3], kernel=kernel_name(part, bias))
        for part in ("backward_kv", "backward_q")
    )
    if kv.backend == "torch" or dq.backend == "torch":
        return backward_reference(grad, q, k, v, out, lse, bias, key_bias, scale)
    return launch_backward(grad, Call(q, k, v, bias, key_bias, scale), out, lse, kv.tile, dq.tile)


def _backward_fake(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, key_bias, ctx.scale = inputs
    if any(b is not None and b.requires_grad for b in (bias, key_bias)):
        raise ValueError(
            "mezzotint::attention has no gradient for bias and key_bias; wanted bias.detach(), or "
            "mezzotint_kernels.dense, which takes torch's own attention for it"
        )
    ctx.save_for_backward(q, k, v, bias, key_bias, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, bias, key_bias, out, lse = ctx.saved_tensors
    return (*_attention_backward(grad, q, k, v, out, lse, bias, key_bias, ctx.scale), None, None, None)


_attention = register(
    "attention",
    "(Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? key_bias, float scale) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
    _differentiate,
    _setup_context,
)

_attention_backward = register(
    "attention_backward",
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor? bias, Tensor? key_bias, "
    "float scale) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
