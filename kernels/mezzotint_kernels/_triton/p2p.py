"""Prompt-to-prompt cross attention with the token map folded into the values: two softmax terms, one accumulator.

    out_b = softmax(q_b k_b) U_b + softmax(q_s k_s) W_b        s: the row that holds b's source prompt

The few text tokens (77) are one tile of T1 + T2 columns, each a power of two (64 + 16), so that a term's
exponentials are complete before they meet the values. Strides come in units of VEC elements,
and a head of D numbers is cut in D1 + D2, as in `temporal`.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _load_rows(
    p, o_r, rows, s_r, o_c, D: tl.constexpr, VEC: tl.constexpr, ALL_ROWS: tl.constexpr, ALL_COLUMNS: tl.constexpr
):
    at = p + o_r[:, None] * s_r * VEC + o_c[None, :]
    if ALL_ROWS and ALL_COLUMNS:
        return tl.load(at)
    if ALL_COLUMNS:
        return tl.load(at, mask=(o_r < rows)[:, None], other=0.0)
    if ALL_ROWS:
        return tl.load(at, mask=(o_c < D)[None, :], other=0.0)
    return tl.load(at, mask=(o_r < rows)[:, None] & (o_c < D)[None, :], other=0.0)


@triton.jit
def _logits(
    b_q1, b_q2, p_k, p_bias, row, o_t, s_kn, factor,
    T: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, VEC: tl.constexpr,
    ALL_TOKENS: tl.constexpr, BIAS: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """[BM, T1 or T2]: base-2 logits; -inf beyond the tokens."""
    b_k = _load_rows(p_k, o_t, T, s_kn, tl.arange(0, D1), D, VEC, ALL_TOKENS, D1 <= D)
    b_s = tl.dot(b_q1, tl.trans(b_k), input_precision=PREC)
    if D2 > 0:
        b_k2 = _load_rows(p_k, o_t, T, s_kn, D1 + tl.arange(0, D2), D, VEC, ALL_TOKENS, D1 + D2 == D)
        b_s = tl.dot(b_q2, tl.trans(b_k2), b_s, input_precision=PREC)
    b_s = b_s * factor
    if BIAS:
        b_s += (tl.load(p_bias + row * T + o_t, mask=o_t < T, other=0.0) * LOG2E)[None, :]
    if not ALL_TOKENS:
        b_s = tl.where((o_t < T)[None, :], b_s, -float("inf"))
    return b_s


@triton.jit
def _exponentials(
    p_q, p_k, p_bias, row, o_m, M, s_qm, s_kn, scale,
    T: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    VEC: tl.constexpr, ALL_ROWS: tl.constexpr, BIAS: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """[BM, T1], [BM, T2]: exponentials of a term over all tokens, and their sums [BM]; float32.

    As in flash attention their sums are divided by after the product, so that the largest, 1, is not rounded.
    The second block is not to be used if T2 is 0.
    """
    b_q1 = _load_rows(p_q, o_m, M, s_qm, tl.arange(0, D1), D, VEC, ALL_ROWS, D1 <= D)
    b_q2 = b_q1
    if D2 > 0:
        b_q2 = _load_rows(p_q, o_m, M, s_qm, D1 + tl.arange(0, D2), D, VEC, ALL_ROWS, D1 + D2 == D)
    factor = scale * LOG2E
    b_p1 = _logits(
        b_q1, b_q2, p_k, p_bias, row, tl.arange(0, T1), s_kn, factor, T, D, D1, D2, VEC, T1 <= T, BIAS, PREC
    )
    b_p2 = b_p1
    b_top = tl.max(b_p1, 1)
    if T2 > 0:
        b_p2 = _logits(
            b_q1, b_q2, p_k, p_bias, row, T1 + tl.arange(0, T2), s_kn, factor,
            T, D, D1, D2, VEC, T1 + T2 == T, BIAS, PREC,
        )  # fmt: skip
        b_top = tl.maximum(b_top, tl.max(b_p2, 1))
    if BIAS:
        b_top = tl.where(b_top == -float("inf"), 0.0, b_top)  # a bias may mask every token
    b_p1 = tl.exp2(b_p1 - b_top[:, None])
    b_sum = tl.sum(b_p1, 1)
    if T2 > 0:
        b_p2 = tl.exp2(b_p2 - b_top[:, None])
        b_sum += tl.sum(b_p2, 1)
    if BIAS:
        b_sum = tl.where(b_sum == 0.0, 1.0, b_sum)
    return b_p1, b_p2, b_sum


@triton.jit
def _product(
    b_acc, b_p1, b_p2, p_v, o_c,
    T: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr, D: tl.constexpr, VEC: tl.constexpr,
    ALL_COLUMNS: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """b_acc [BM, D1 or D2] + exponentials times values, contiguous [T, D]."""
    b_v = _load_rows(p_v, tl.arange(0, T1), T, D // VEC, o_c, D, VEC, T1 <= T, ALL_COLUMNS)
    b_acc = tl.dot(b_p1, b_v, b_acc, input_precision=PREC)
    if T2 > 0:
        b_v2 = _load_rows(p_v, T1 + tl.arange(0, T2), T, D // VEC, o_c, D, VEC, T1 + T2 == T, ALL_COLUMNS)
        b_acc = tl.dot(b_p2, b_v2, b_acc, input_precision=PREC)
    return b_acc


@triton.jit
def _word_columns(b_maps, b_p1, b_p2, b_sum, p_words, o_k, K, T: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr):
    """b_maps [BM, KP] + a term's probabilities times the words' weights, [K, T]: float32 value columns."""
    for k in range(0, K):
        o_1 = tl.arange(0, T1)
        b_w = tl.load(p_words + k * T + o_1, mask=o_1 < T, other=0.0)
        b_column = tl.sum(b_p1 * b_w[None, :], 1)
        if T2 > 0:
            o_2 = T1 + tl.arange(0, T2)
            b_w2 = tl.load(p_words + k * T + o_2, mask=o_2 < T, other=0.0)
            b_column += tl.sum(b_p2 * b_w2[None, :], 1)
        b_maps = tl.where((o_k == k)[None, :], b_maps + (b_column / b_sum)[:, None], b_maps)
    return b_maps


@triton.jit
def _fwd_kernel(
    p_q, p_k, p_w, p_u, p_o, p_source, p_bias, p_words_w, p_words_u, p_maps, scale,
    s_qb, s_qh, s_qm, s_kb, s_kh, s_kn, s_ob, s_oh, s_om,
    H, M, BLOCKS, K,
    T: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    BM: tl.constexpr, KP: tl.constexpr, VEC: tl.constexpr, ALL_ROWS: tl.constexpr,
    BIAS: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """One program: BM queries of one batch row and head. Grid: B * BLOCKS * H, heads fastest.

    p_q, p_o [B, H, M, D], p_k [B, H, T, D]: by strides in units of VEC elements; unit last stride.
    p_w, p_u: [B, H, T, D], contiguous.
    p_source: int32 [B], the row of each row's source prompt; its own: no second term, p_w is not read.
    p_bias: float32 [B, T], added to the logits where BIAS.
    p_words_w, p_words_u: float32 [B, K, T]; p_maps: float32 [B, K, H, M]; where KP > 0, K <= KP.
    """
    pid = tl.program_id(0).to(tl.int64)
    h = pid % H
    block = (pid // H) % BLOCKS
    b = pid // H // BLOCKS
    source = tl.load(p_source + b).to(tl.int64)
    o_m = (block * BM).to(tl.int32) + tl.arange(0, BM)
    o_1 = tl.arange(0, D1)
    values = (b * H + h) * T * (D // VEC) * VEC
    b_p1, b_p2, b_sum = _exponentials(
        p_q + (b * s_qb + h * s_qh) * VEC, p_k + (b * s_kb + h * s_kh) * VEC, p_bias, b, o_m, M, s_qm, s_kn, scale,
        T, T1, T2, D, D1, D2, VEC, ALL_ROWS, BIAS, PREC,
    )  # fmt: skip
    # [BM, KP]; before the products, so that the float32 exponentials need not outlive them.
    b_maps = b_p1
    if KP > 0:
        o_k = tl.arange(0, KP)
        b_maps = tl.zeros([BM, KP], tl.float32)
        b_maps = _word_columns(b_maps, b_p1, b_p2, b_sum, p_words_u + b * K * T, o_k, K, T, T1, T2)
    b_p1, b_p2 = b_p1.to(p_u.dtype.element_ty), b_p2.to(p_u.dtype.element_ty)
    # [BM, D1], [BM, D2]
    b_o1 = tl.zeros([BM, D1], tl.float32)
    b_o1 = _product(b_o1, b_p1, b_p2, p_u + values, o_1, T, T1, T2, D, VEC, D1 <= D, PREC)
    b_o2 = b_o1
    if D2 > 0:
        o_2 = D1 + tl.arange(0, D2)
        b_o2 = tl.zeros([BM, D2], tl.float32)
        b_o2 = _product(b_o2, b_p1, b_p2, p_u + values, o_2, T, T1, T2, D, VEC, D1 + D2 == D, PREC)
    if source != b:
        b_s1, b_s2, b_source_sum = _exponentials(
            p_q + (source * s_qb + h * s_qh) * VEC, p_k + (source * s_kb + h * s_kh) * VEC, p_bias, source,
            o_m, M, s_qm, s_kn, scale, T, T1, T2, D, D1, D2, VEC, ALL_ROWS, BIAS, PREC,
        )  # fmt: skip
        if KP > 0:
            b_maps = _word_columns(b_maps, b_s1, b_s2, b_source_sum, p_words_w + b * K * T, o_k, K, T, T1, T2)
        # Both terms are divided by this one's sum in the end.
        b_ratio = (b_source_sum / b_sum)[:, None]
        b_sum = b_source_sum
        b_s1, b_s2 = b_s1.to(p_w.dtype.element_ty), b_s2.to(p_w.dtype.element_ty)
        b_o1 = _product(b_o1 * b_ratio, b_s1, b_s2, p_w + values, o_1, T, T1, T2, D, VEC, D1 <= D, PREC)
        if D2 > 0:
            b_o2 = _product(b_o2 * b_ratio, b_s1, b_s2, p_w + values, o_2, T, T1, T2, D, VEC, D1 + D2 == D, PREC)
    b_inverse = (1.0 / b_sum)[:, None]
    # [BM, 1]
    p_row = p_o + (b * s_ob + h * s_oh) * VEC + o_m[:, None] * s_om * VEC
    m_m = (o_m < M)[:, None]
    tl.store(p_row + o_1[None, :], (b_o1 * b_inverse).to(p_o.dtype.element_ty), mask=m_m & (o_1 < D)[None, :])
    if D2 > 0:
        tl.store(p_row + o_2[None, :], (b_o2 * b_inverse).to(p_o.dtype.element_ty), mask=m_m & (o_2 < D)[None, :])
    if KP > 0:
        at = p_maps + ((b * K + o_k[None, :]) * H + h) * M + o_m[:, None]
        tl.store(at, b_maps, mask=m_m & (o_k < K)[None, :])
