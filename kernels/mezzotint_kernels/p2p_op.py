"""`mezzotint::p2p_attention`: prompt-to-prompt on folded values, by torch or by the kernel, and its gradient.

`p2p` has the mathematics and the public functions, which check what comes in here.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint_kernels.dispatch import architecture, choose
from mezzotint_kernels.p2p_launch import Call, launch, obstacle
from mezzotint_kernels.registration import register
from mezzotint_kernels.rows import empty_output

__all__ = ["p2p_op", "p2p_op_reference"]


def _forward(
    q: Tensor,
    k: Tensor,
    w: Tensor,
    u: Tensor,
    source: list[int],
    key_bias: Tensor | None,
    words_w: Tensor | None,
    words_u: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    words = 0 if words_u is None else words_u.shape[1]
    choice = choose("p2p_attention", q, head_dim=q.shape[-1], obstacle=obstacle(k.shape[2], words))
    if choice.backend == "torch":
        return p2p_op_reference(q, k, w, u, source, key_bias, words_w, words_u, scale)
    out, maps = _fake(q, k, w, u, source, key_bias, words_w, words_u, scale)
    rows = _source_rows(tuple(source), q.device)
    call = Call(q, k, w, u, rows, key_bias, words_w, words_u, scale)
    launch(call, out, maps, choice.tile, architecture(q.device))
    return out, maps


@lru_cache(maxsize=64)
def _source_rows(source: tuple[int, ...], device: torch.device) -> Tensor:
    """On the device once: a copy to it at each layer would cost more than the kernel."""
    return torch.tensor(source, dtype=torch.int32, device=device)


def _fake(
    q: Tensor,
    k: Tensor,
    w: Tensor,
    u: Tensor,
    source: list[int],
    key_bias: Tensor | None,
    words_w: Tensor | None,
    words_u: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    rows, heads, queries, _ = q.shape
    words = 0 if words_u is None else words_u.shape[1]
    wide = torch.promote_types(q.dtype, torch.float32)
    return empty_output(q, rows), q.new_empty((rows, words, heads, queries), dtype=wide)


def p2p_op_reference(
    q: Tensor,
    k: Tensor,
    w: Tensor,
    u: Tensor,
    source: list[int],
    key_bias: Tensor | None,
    words_w: Tensor | None,
    words_u: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    rows, heads = q.shape[:2]
    edits = [b for b, s in enumerate(source) if s != b]
    mask = None if key_bias is None else key_bias.expand(rows, -1)[:, None, None]  # [B, 1, 1, T]
    terms = [(list(range(rows)), list(range(rows)), u, words_u), ([source[b] for b in edits], edits, w, words_w)]
    out, maps = _fake(q, k, w, u, source, key_bias, words_w, words_u, scale)
    for number, (asked, written, values, words) in enumerate(terms[: 1 + bool(edits)]):
        # Whole batches are views; picking rows of queries is a copy.
        q_t, k_t, values, words, mask_t = (
            x if x is None or number == 0 else x[rows_t]
            for x, rows_t in ((q, asked), (k, asked), (values, written), (words, written), (mask, asked))
        )
        found = _attend(q_t, k_t, values, mask_t, scale)
        out[written] = found if number == 0 else out[written] + found
        if words is not None:
            columns = words.mT[:, None].expand(-1, heads, -1, -1)  # [rows, H, T, K]
            map_t = _attend(q_t.to(maps.dtype), k_t.to(maps.dtype), columns, mask_t, scale).permute(0, 3, 1, 2)
            maps[written] = map_t if number == 0 else maps[written] + map_t
    return out, maps


def _attend(q: Tensor, k: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    if mask is None:
        return F.scaled_dot_product_attention(q, k, values, scale=scale)
    found = F.scaled_dot_product_attention(q, k, values, mask.to(q.dtype), scale=scale)
    # Not every backend of torch gives zeros where all tokens are taken away.
    return found.masked_fill((mask == -math.inf).all(-1, keepdim=True), 0.0)


# ---- the gradient


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, w, u, ctx.source, key_bias, words_w, words_u, ctx.scale = inputs
    ctx.save_for_backward(q, k, w, u, key_bias, words_w, words_u)


def _gradients(ctx: Any, grad: Tensor, grad_maps: Tensor) -> tuple[Tensor | None, ...]:
    q, k, w, u, key_bias, words_w, words_u = ctx.saved_tensors
    dq, dk, dw, du, dwords_w, dwords_u = _p2p_backward(
        grad, grad_maps, q, k, w, u, ctx.source, key_bias, words_w, words_u, ctx.scale
    )
    dwords = (None, None) if words_u is None else (dwords_w, dwords_u)
    return dq, dk, dw, du, None, None, *dwords, None


def _backward(
    grad: Tensor,
    grad_maps: Tensor,
    q: Tensor,
    k: Tensor,
    w: Tensor,
    u: Tensor,
    source: list[int],
    key_bias: Tensor | None,
    words_w: Tensor | None,
    words_u: Tensor | None,
    scale: float,
) -> tuple[Tensor, ...]:
    """Row by row, so that at most one row's maps [H, N, T] are held. Sums are in float32 at least."""
    wide = torch.promote_types(q.dtype, torch.float32)
    inputs = q, k, w, u
    dq, dk, dw, du = (x.new_zeros(x.shape, dtype=wide) for x in inputs)
    dwords_w, dwords_u = (grad_maps.new_zeros((0,) if x is None else x.shape) for x in (words_w, words_u))
    mask = None if key_bias is None else key_bias.to(wide).expand(q.shape[0], -1)
    for b, s in enumerate(source):
        own, other = (b, u, words_u, du, dwords_u), (s, w, words_w, dw, dwords_w)
        for asked, values, words, dvalues, dwords in (own, other) if s != b else (own,):
            q_r, k_r, v_r, g = (x.to(wide) for x in (q[asked], k[asked], values[b], grad[b]))
            logits = q_r @ k_r.mT * scale
            p = (logits if mask is None else logits + mask[asked]).softmax(-1)  # [H, N, T]
            if mask is not None:
                p = p.masked_fill((mask[asked] == -math.inf).all(), 0.0)
            dp = g @ v_r.mT
            if words is not None:
                dp = dp + torch.einsum("khn,kt->hnt", grad_maps[b], words[b])
                dwords[b] += torch.einsum("khn,hnt->kt", grad_maps[b], p)
            dlogits = p * (dp - (dp * p).sum(-1, keepdim=True)) * scale
            dq[asked] += dlogits @ k_r
            dk[asked] += dlogits.mT @ q_r
            dvalues[b] += p.mT @ g
    found = (d.to(x.dtype) for d, x in zip((dq, dk, dw, du), inputs, strict=True))
    return (*found, dwords_w, dwords_u)


def _backward_fake(
    grad: Tensor,
    grad_maps: Tensor,
    q: Tensor,
    k: Tensor,
    w: Tensor,
    u: Tensor,
    source: list[int],
    key_bias: Tensor | None,
    words_w: Tensor | None,
    words_u: Tensor | None,
    scale: float,
) -> tuple[Tensor, ...]:
    found = (x.new_empty(x.shape) for x in (q, k, w, u))
    return (*found, *(grad_maps.new_empty((0,) if x is None else x.shape) for x in (words_w, words_u)))


p2p_op = register(
    "p2p_attention",
    "(Tensor q, Tensor k, Tensor w, Tensor u, int[] source, Tensor? key_bias, Tensor? words_w, Tensor? words_u, "
    "float scale) -> (Tensor, Tensor)",
    _forward,
    _fake,
    _gradients,
    _keep,
)
_p2p_backward = register(
    "p2p_attention_backward",
    "(Tensor grad, Tensor grad_maps, Tensor q, Tensor k, Tensor w, Tensor u, int[] source, Tensor? key_bias, "
    "Tensor? words_w, Tensor? words_u, float scale) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
