"""Attention and its gradients in plain torch: what the kernels are checked against, and the path without them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["backward_by_scores", "backward_reference", "forward_by_scores", "forward_reference", "joined_biases"]


def joined_biases(q: Tensor, bias: Tensor | None, key_bias: Tensor | None) -> Tensor | None:
    """Both biases as one of four dimensions that broadcast, in q's dtype, for torch; None: there is none."""
    if bias is not None:
        bias = bias[(None,) * (4 - bias.dim())]
    if key_bias is not None:
        key_bias = key_bias[:, None, None] if key_bias.dim() == 2 else key_bias[:, :, None]
        bias = key_bias if bias is None else bias + key_bias
    return None if bias is None else bias.to(q.dtype)


def forward_reference(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Torch's flash attention on a CPU; elsewhere torch gives no log-sum-exp, and all scores are held."""
    mask = joined_biases(q, bias, key_bias)
    if q.device.type != "cpu":
        out, lse = forward_by_scores(q, k, v, mask, scale)
    else:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = flash(q, k, v, 0.0, False, attn_mask=mask, scale=scale)
        lse = lse.contiguous()
        if mask is not None:  # torch says 0 there
            lse.masked_fill_((mask == -math.inf).all(-1).expand(lse.shape), -math.inf)
    return _laid_out_as(out, q), lse


def backward_reference(
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
    mask = joined_biases(q, bias, key_bias)
    lse = lse.masked_fill(lse == -math.inf, 0.0)  # so that exp(-inf - lse) is 0 and not NaN
    if q.device.type != "cpu":
        dq, dk, dv = backward_by_scores(grad, q, k, v, out, lse, mask, scale)
    else:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        dq, dk, dv = flash(grad, q, k, v, out, lse, 0.0, False, attn_mask=mask, scale=scale)
    return _laid_out_as(dq, q), _laid_out_as(dk, k), _laid_out_as(dv, v)


def forward_by_scores(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    scores = _scores(q, k, mask, scale)
    lse = scores.logsumexp(-1)
    p = (scores - lse.masked_fill(lse == -math.inf, 0.0)[..., None]).exp()
    return p @ v.to(p.dtype), lse


def backward_by_scores(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    p = (_scores(q, k, mask, scale) - lse[..., None]).exp()
    grad = grad.to(p.dtype)
    delta = (grad * out.to(p.dtype)).sum(-1, keepdim=True)
    ds = p * (grad @ v.to(p.dtype).mT - delta) * scale
    return ds @ k.to(p.dtype), ds.mT @ q.to(p.dtype), p.mT @ grad


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(wide) @ k.to(wide).mT * scale
    return scores if mask is None else scores + mask.to(wide)


def _laid_out_as(x: Tensor, like: Tensor) -> Tensor:
    """x with the strides and dtype that the fake promises: those of empty_like. Copied only where they differ."""
    wanted = torch.empty_like(like)
    return x if x.stride() == wanted.stride() and x.dtype == wanted.dtype else wanted.copy_(x)
