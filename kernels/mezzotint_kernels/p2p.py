"""Prompt-to-prompt cross attention: the edited picture looks where the source picture looked.

After Hertz et al. 2022, "Prompt-to-Prompt Image Editing with Cross Attention Control". P_s, P_e are the attention
maps [N, T] of the source prompt's row and of the edit's row, M [T, T] says which token of the source each token of
the edit takes the place of, alpha [T] how much of the source's map each token gets, and c [T] its weight:

    out_e = ((alpha (P_s M) + (1 - alpha) P_e) c) V_e
          = P_s W + P_e U        W = M diag(alpha c) V_e        U = diag((1 - alpha) c) V_e

Replacing a word is alpha = 1 and M with the word's rows changed; refining is alpha = 0 at the new tokens;
re-weighting is c. W and U are as small as the values, so that no map reaches memory: the Triton kernel
(`_triton/p2p.py`) adds both products in one pass, and elsewhere torch's scaled-dot-product attention does it in
two. The maps that a local blend needs are sums of P over a few words: value columns like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from mezzotint_kernels.p2p_op import p2p_op, p2p_op_reference
from mezzotint_kernels.rows import check_tensors

__all__ = [
    "Folded",
    "P2PResult",
    "fold",
    "p2p_attention",
    "p2p_attention_folded",
    "p2p_attention_reference",
    "p2p_attention_with_maps",
]


class Folded(NamedTuple):
    """Values with the edit in them. w: for the source's map; u: for the row's own. Both of the values' shape."""

    w: Tensor
    u: Tensor


class P2PResult(NamedTuple):
    """out: as `p2p_attention` gives it. maps: [B, K, H, N], float32 (float64 for float64)."""

    out: Tensor
    maps: Tensor


def fold(v: Tensor, mapping: Tensor | None = None, alpha: Tensor | None = None, c: Tensor | None = None) -> Folded:
    """W = M diag(alpha c) V and U = diag((1 - alpha) c) V, in float32 at least and rounded once to v's dtype.

    v: [B, H, T, D], values of the rows' own prompts. They change with the layer and the text only, so what this
        gives can be kept over the steps for which mapping, alpha and c stay.
    mapping: [T, T] or [B, T, T], (token of the source, token of the edit); None: each token to itself.
    alpha: [T] or [B, T], 1 for the source's map and 0 for the row's own; None: 1 everywhere.
    c: [T] or [B, T]; None: 1 everywhere.
    Differentiable in all four.
    Raises: ValueError: shapes, dtypes or devices do not fit.
    """
    _check_edit(v, mapping, alpha, c)
    wide = torch.promote_types(v.dtype, torch.float32)
    values = v.to(wide)
    if c is not None:
        values = values * _column(c, wide)
    if alpha is None:
        w, u = values, torch.zeros_like(values)
    else:
        share = _column(alpha, wide)
        w, u = values * share, values * (1 - share)
    if mapping is not None:
        w = (mapping if mapping.dim() == 2 else mapping[:, None]).to(wide) @ w
    return Folded(w.to(v.dtype), u.to(v.dtype))


def p2p_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    source: Sequence[int],
    *,
    mapping: Tensor | None = None,
    alpha: Tensor | None = None,
    c: Tensor | None = None,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Cross attention of a batch in which some rows are edits of others: [B, H, N, D], laid out in memory as q is.

    q: [B, H, N, D]; k, v: [B, H, T, D], T text tokens; one floating dtype and device, unit last stride. The whole
        batch of a layer goes in, whatever the order of its rows: sources, edits and unconditional rows.
    source: for each row of the batch the row that holds its source prompt; a row that is no edit has its own
        number there. [0, 0, 2, 2] makes row 1 an edit of row 0 and row 3 one of row 2.
    mapping, alpha, c: as in `fold`, for every row of the batch. A row that is no edit takes c only; what mapping
        and alpha say of it is not used.
    key_bias: floating, [B, T] or [1, T], added to the logits; -inf takes a token away (padding of the prompt).
    scale: above 0; 1 / sqrt(D) by default.
    Gradients go to q, k, v and through `fold`; the backward pass is plain torch and computes the maps again.
    Raises: ValueError: shapes, dtypes, devices or rows do not fit, or a dimension is 0.
    """
    factor = _check(q, k, v, source, key_bias, scale)
    w, u = _folded_rows(v, source, mapping, alpha, c)
    out: Tensor = p2p_op(q, k, w, u, list(source), key_bias, None, None, factor)[0]
    return out


def p2p_attention_with_maps(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    source: Sequence[int],
    words: Tensor,
    *,
    mapping: Tensor | None = None,
    alpha: Tensor | None = None,
    c: Tensor | None = None,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> P2PResult:
    """`p2p_attention` with sums of the maps that it used, for a local blend or for looking at.

    words: floating, [B, K, T]: K weightings of each row's own tokens, 1 for the tokens of a word and 0 elsewhere.
        maps[b, k, h, n] is how much query n looks at them, mixing, mapping and weights of an edit included.
    """
    factor = _check(q, k, v, source, key_bias, scale)
    _check_words(words, q, k)
    w, u = _folded_rows(v, source, mapping, alpha, c)
    wide = torch.promote_types(q.dtype, torch.float32)
    columns = _folded_rows(words.to(wide).mT[:, None], source, mapping, alpha, c)
    words_w, words_u = (x[:, 0].mT.contiguous() for x in columns)
    return P2PResult(*p2p_op(q, k, w, u, list(source), key_bias, words_w, words_u, factor))


def p2p_attention_folded(
    q: Tensor,
    k: Tensor,
    w: Tensor,
    u: Tensor,
    source: Sequence[int],
    *,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """`p2p_attention` on values folded before: softmax(q_b k_b) u_b + softmax(q_s k_s) w_b, s = source[b].

    w, u: [B, H, T, D]. Where s = b the second term is left out and w is not looked at, so such a row is to be
    folded with alpha = 0.
    """
    factor = _check(q, k, u, source, key_bias, scale)
    if w.shape != u.shape or w.dtype != u.dtype or w.device != u.device:
        raise ValueError(
            f"w is {w.dtype} {tuple(w.shape)} on {w.device}; wanted what u is: {u.dtype} {tuple(u.shape)}"
        )
    out: Tensor = p2p_op(q, k, w, u, list(source), key_bias, None, None, factor)[0]
    return out


def p2p_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    source: Sequence[int],
    *,
    mapping: Tensor | None = None,
    alpha: Tensor | None = None,
    c: Tensor | None = None,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """`p2p_attention` by torch's scaled-dot-product attention on the folded values, on any device."""
    factor = _check(q, k, v, source, key_bias, scale)
    w, u = _folded_rows(v, source, mapping, alpha, c)
    return p2p_op_reference(q, k, w, u, list(source), key_bias, None, None, factor)[0]


# ---- what comes in


def _folded_rows(
    v: Tensor, source: Sequence[int], mapping: Tensor | None, alpha: Tensor | None, c: Tensor | None
) -> Folded:
    """`fold`, with alpha 0 for the rows that are no edits."""
    _check_edit(v, mapping, alpha, c)
    # Built anew under torch.compile, where it becomes a constant of the graph.
    make = _edits.__wrapped__ if torch.compiler.is_compiling() else _edits
    edits = make(tuple(source), v.device)
    share = edits if alpha is None else edits * alpha
    return fold(v, mapping, share.expand(v.shape[0], v.shape[2]), c)


@lru_cache(maxsize=64)
def _edits(source: tuple[int, ...], device: torch.device) -> Tensor:
    """[B, 1], float32: 1 where a row is an edit of another."""
    return torch.tensor([[1.0 if s != b else 0.0] for b, s in enumerate(source)], device=device)


def _column(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[T] or [B, T] to what multiplies [B, H, T, D]."""
    return (x[:, None, :, None] if x.dim() == 2 else x[:, None]).to(dtype)


def _check(
    q: Tensor, k: Tensor, v: Tensor, source: Sequence[int], key_bias: Tensor | None, scale: float | None
) -> float:
    factor = check_tensors(q, k, v, scale)
    rows = q.shape[0]
    if k.shape[0] != rows or v.shape[0] != rows:
        raise ValueError(
            f"q, k, v have {rows}, {k.shape[0]} and {v.shape[0]} rows; wanted as many in all three: a prompt for "
            "each row of queries"
        )
    if len(source) != rows or not all(isinstance(s, int) and 0 <= s < rows for s in source):
        raise ValueError(
            f"source is {source!r}; wanted {rows} whole numbers in 0..{rows - 1}, one for each row of the batch "
            "(its own number for a row that is no edit)"
        )
    chained = [b for b, s in enumerate(source) if source[s] != s]
    if chained:
        raise ValueError(
            f"source {list(source)} makes row {chained[0]} an edit of row {source[chained[0]]}, which is an edit "
            "itself; wanted a row that is no edit"
        )
    if key_bias is not None:
        fits = key_bias.shape in ((rows, k.shape[2]), (1, k.shape[2]))
        if not fits or not key_bias.is_floating_point() or key_bias.device != q.device:
            raise ValueError(
                f"key_bias is {key_bias.dtype} {tuple(key_bias.shape)} on {key_bias.device}; wanted a floating "
                f"dtype, [{rows}, {k.shape[2]}] or [1, {k.shape[2]}], on {q.device}"
            )
        if key_bias.requires_grad and torch.is_grad_enabled():
            raise ValueError("key_bias wants a gradient, which is not computed; wanted key_bias.detach()")
    return factor


def _check_edit(v: Tensor, mapping: Tensor | None, alpha: Tensor | None, c: Tensor | None) -> None:
    if v.dim() != 4 or 0 in v.shape or not v.is_floating_point():
        raise ValueError(f"v is {v.dtype} {tuple(v.shape)}; wanted a floating dtype, [rows, heads, tokens, size]")
    rows, _, tokens, _ = v.shape
    wanted = {"mapping": (tokens, tokens), "alpha": (tokens,), "c": (tokens,)}
    for (name, last), x in zip(wanted.items(), (mapping, alpha, c), strict=True):
        if x is None:
            continue
        if tuple(x.shape) not in (last, (rows, *last)) or not x.is_floating_point() or x.device != v.device:
            raise ValueError(
                f"{name} is {x.dtype} {tuple(x.shape)} on {x.device}; wanted a floating dtype, {list(last)} or "
                f"{[rows, *last]} ({tokens} tokens, {rows} rows), on {v.device}"
            )


def _check_words(words: Tensor, q: Tensor, k: Tensor) -> None:
    rows, tokens = k.shape[0], k.shape[2]
    fits = words.dim() == 3 and words.shape[0] == rows and words.shape[2] == tokens and words.shape[1] > 0
    if not fits or not words.is_floating_point() or words.device != q.device:
        raise ValueError(
            f"words is {words.dtype} {tuple(words.shape)} on {words.device}; wanted a floating dtype, "
            f"[{rows}, K, {tokens}] (rows, weightings, tokens), on {q.device}"
        )
