"""Attention whose keys and values are rows of larger tensors, named by a table: nothing is copied together.

The pass over the keys is that of `attention`, whose file says what is particular to it, with a loop over the
table around it. Logits are in base 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mezzotint_kernels._triton.attention import LOG2E, load_rows, store_rows


@triton.jit
def safe_row(row, rows, log_weight):
    """A row that can be read, the number of its slot's logit weight, and whether the slot counts.

    -1, or a weight of -inf: the slot adds nothing. A row that does not exist: row 0 with a weight of NaN, so
    that the caller sees the mistake in the result and no memory of others is read.
    """
    wrong = (row < -1) | (row >= rows)
    log_weight = tl.where(wrong, float("nan"), log_weight)
    counts = (row != -1) & (log_weight != -float("inf"))
    return tl.where(wrong | (row < 0), 0, row).to(tl.int64), log_weight, counts


@triton.jit
def attend(
    b_q1, b_q2, b_a1, b_a2, b_max, b_sum, p_k, p_v, stride_kn, stride_vn, keys, scale2, log_weight2,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, BN: tl.constexpr, VEC: tl.constexpr,
    EVEN_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Keys 0..keys-1 of one row join a running softmax.

    b_q1 [BM, D1], b_q2 [BM, D2]; b_a1, b_a2: the values' weighted sum so far; b_max [BM]: largest logit, in base
    2 and with its slot's weight; b_sum [BM]. scale2 > 0 and log_weight2 are in base 2 too. D2 == 0: the second
    blocks are passed through.
    """
    o_n = tl.arange(0, BN)
    o_d1 = tl.arange(0, D1)
    for start in range(0, keys, BN):
        o_k = start + o_n
        m_k = o_k < keys
        b_k1 = load_rows(p_k, o_k, m_k, stride_kn, o_d1, D, VEC, EVEN_N, D1 <= D)  # [BN, D1]
        b_s = tl.dot(b_q1, tl.trans(b_k1), input_precision=PRECISION)  # [BM, BN]
        if D2 > 0:
            b_k2 = load_rows(p_k, o_k, m_k, stride_kn, D1 + tl.arange(0, D2), D, VEC, EVEN_N, D1 + D2 == D)
            b_s = tl.dot(b_q2, tl.trans(b_k2), b_s, input_precision=PRECISION)
        if not EVEN_N:
            b_s = tl.where(m_k[None, :], b_s, -float("inf"))
        # The maximum is scaled for itself, so that scale, weight and shift are one multiply-add an element.
        b_new = tl.maximum(b_max, tl.max(b_s, 1) * scale2 + log_weight2)
        b_p = tl.exp2(b_s * scale2 - (b_new - log_weight2)[:, None])
        b_keep = tl.exp2(b_max - b_new)
        b_sum = b_sum * b_keep + tl.sum(b_p, 1)
        b_v1 = load_rows(p_v, o_k, m_k, stride_vn, o_d1, D, VEC, EVEN_N, D1 <= D)  # [BN, D1]
        b_a1 = tl.dot(b_p.to(b_v1.dtype), b_v1, b_a1 * b_keep[:, None], input_precision=PRECISION)
        if D2 > 0:
            b_v2 = load_rows(p_v, o_k, m_k, stride_vn, D1 + tl.arange(0, D2), D, VEC, EVEN_N, D1 + D2 == D)
            b_a2 = tl.dot(b_p.to(b_v2.dtype), b_v2, b_a2 * b_keep[:, None], input_precision=PRECISION)
        b_max = b_new
    return b_a1, b_a2, b_max, b_sum


@triton.jit
def _fwd_kernel(
    p_q, p_k, p_v, p_out, p_table, p_log_weight, scale,
    stride_qb, stride_qh, stride_qn, stride_kr, stride_kh, stride_kn,
    stride_vr, stride_vh, stride_vn, stride_ob, stride_oh, stride_on,
    H, N, M, ROWS, SLOTS,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, VEC: tl.constexpr,
    EVEN_M: tl.constexpr, EVEN_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of BM queries of one head of sample b, over rows p_table[b, 0..SLOTS-1] of k and v.

    Grid: cdiv(N, BM) * B * H. q, out [B, H, N, D]; k, v [ROWS, H, M, D], all by strides in units of VEC.
    p_table [B, SLOTS] int; p_log_weight [B, SLOTS] float32, natural, or None for all zero.
    """
    blocks = tl.cdiv(N, BM)
    program = tl.program_id(0)
    b = (program // blocks // H).to(tl.int64)
    h = ((program // blocks) % H).to(tl.int64)
    o_m = (program % blocks) * BM + tl.arange(0, BM)
    m_m = o_m < N
    o_d1 = tl.arange(0, D1)
    # All that is known before the loop goes into the pointers, so that few numbers have to be kept through it.
    p_q += (b * stride_qb + h * stride_qh) * VEC
    p_k += h * stride_kh * VEC
    p_v += h * stride_vh * VEC
    p_out += (b * stride_ob + h * stride_oh) * VEC
    p_table += b * SLOTS
    if p_log_weight is not None:
        p_log_weight += b * SLOTS
    b_q1 = load_rows(p_q, o_m, m_m, stride_qn, o_d1, D, VEC, EVEN_M, D1 <= D)
    b_a1 = tl.zeros([BM, D1], tl.float32)
    b_q2 = b_q1
    b_a2 = b_a1
    if D2 > 0:
        b_q2 = load_rows(p_q, o_m, m_m, stride_qn, D1 + tl.arange(0, D2), D, VEC, EVEN_M, D1 + D2 == D)
        b_a2 = tl.zeros([BM, D2], tl.float32)
    b_max = tl.full([BM], -float("inf"), tl.float32)
    b_sum = tl.zeros([BM], tl.float32)
    for slot in range(0, SLOTS):
        log_weight = 0.0
        if p_log_weight is not None:
            log_weight = tl.load(p_log_weight + slot)
        row, log_weight, counts = safe_row(tl.load(p_table + slot), ROWS, log_weight)
        b_a1, b_a2, b_max, b_sum = attend(
            b_q1, b_q2, b_a1, b_a2, b_max, b_sum,
            p_k + row * stride_kr * VEC, p_v + row * stride_vr * VEC, stride_kn, stride_vn,
            tl.where(counts, M, 0), scale * LOG2E, log_weight * LOG2E,
            D, D1, D2, BN, VEC, EVEN_N, PRECISION,
        )  # fmt: skip
    # No key at all: the sum and the accumulators are zero, and so is the result.
    b_scale = 1.0 / tl.where(b_sum == 0.0, 1.0, b_sum)
    store_rows(p_out, o_m, m_m, stride_on, o_d1, b_a1 * b_scale[:, None], D, VEC)
    if D2 > 0:
        store_rows(p_out, o_m, m_m, stride_on, D1 + tl.arange(0, D2), b_a2 * b_scale[:, None], D, VEC)
