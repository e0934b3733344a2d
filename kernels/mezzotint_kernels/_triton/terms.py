"""Several softmaxes per output sample, each with its own queries, keys, values and weight, in one launch."""

from __future__ import annotations

import triton
import triton.language as tl

from mezzotint_kernels._triton.attention import LOG2E, load_rows, store_rows
from mezzotint_kernels._triton.indexed import attend, safe_row


@triton.jit
def _fwd_kernel(
    p_q, p_k, p_v, p_out, p_q_rows, p_k_table, p_v_table, p_weights, p_masks, p_log_weight, p_lengths, scale,
    stride_qb, stride_qh, stride_qn, stride_kr, stride_kh, stride_kn,
    stride_vr, stride_vh, stride_vn, stride_ob, stride_oh, stride_on, stride_mb, stride_mt,
    H, N, M, Q_ROWS, K_ROWS, V_ROWS, TERMS, SLOTS,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, VEC: tl.constexpr,
    EVEN_M: tl.constexpr, EVEN_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of BM queries of one head of output sample b: its TERMS softmaxes over SLOTS rows each.

    Grid: cdiv(N, BM) * B * H. q [Q_ROWS, H, N, D], k [K_ROWS, H, M, D], v [V_ROWS, H, M, D], out [B, H, N, D], by
    strides in units of VEC. p_q_rows [B, TERMS], p_k_table and p_v_table [B, TERMS, SLOTS] int; float32, or None
    where they would do nothing: p_weights [B, TERMS], p_masks [B, TERMS, N] by strides, p_log_weight
    [B, TERMS, SLOTS]; p_lengths [K_ROWS] int or None. EVEN_N only where all lengths are M.
    """
    blocks = tl.cdiv(N, BM)
    program = tl.program_id(0)
    b = (program // blocks // H).to(tl.int64)
    h = ((program // blocks) % H).to(tl.int64)
    o_m = (program % blocks) * BM + tl.arange(0, BM)
    m_m = o_m < N
    o_d1 = tl.arange(0, D1)
    # All that is known before the loops goes into the pointers, so that few numbers have to be kept through them.
    p_q += h * stride_qh * VEC
    p_k += h * stride_kh * VEC
    p_v += h * stride_vh * VEC
    p_out += (b * stride_ob + h * stride_oh) * VEC
    p_q_rows += b * TERMS
    p_k_table += b * TERMS * SLOTS
    p_v_table += b * TERMS * SLOTS
    if p_weights is not None:
        p_weights += b * TERMS
    if p_log_weight is not None:
        p_log_weight += b * TERMS * SLOTS
    if p_masks is not None:
        p_masks += b * stride_mb
    b_t1 = tl.zeros([BM, D1], tl.float32)
    b_t2 = b_t1
    if D2 > 0:
        b_t2 = tl.zeros([BM, D2], tl.float32)
    for term in range(0, TERMS):
        weight = 1.0
        if p_weights is not None:
            weight = tl.load(p_weights + term)
        q_row, q_nan, q_counts = safe_row(tl.load(p_q_rows + term), Q_ROWS, 0.0)
        p_qb = p_q + q_row * stride_qb * VEC
        b_q1 = load_rows(p_qb, o_m, m_m, stride_qn, o_d1, D, VEC, EVEN_M, D1 <= D)
        b_a1 = tl.zeros([BM, D1], tl.float32)
        b_q2 = b_q1
        b_a2 = b_a1
        if D2 > 0:
            b_q2 = load_rows(p_qb, o_m, m_m, stride_qn, D1 + tl.arange(0, D2), D, VEC, EVEN_M, D1 + D2 == D)
            b_a2 = tl.zeros([BM, D2], tl.float32)
        b_max = tl.full([BM], -float("inf"), tl.float32)
        b_sum = tl.zeros([BM], tl.float32)
        for slot in range(0, SLOTS):
            at = term * SLOTS + slot
            log_weight = q_nan
            if p_log_weight is not None:
                log_weight += tl.load(p_log_weight + at)
            k_row, log_weight, counts = safe_row(tl.load(p_k_table + at), K_ROWS, log_weight)
            v_row, log_weight, v_counts = safe_row(tl.load(p_v_table + at), V_ROWS, log_weight)
            keys = M
            if p_lengths is not None:
                keys = tl.load(p_lengths + k_row).to(tl.int32)
                wrong = (keys < 0) | (keys > M)
                log_weight = tl.where(wrong, float("nan"), log_weight)
                keys = tl.where(wrong, M, keys)
            b_a1, b_a2, b_max, b_sum = attend(
                b_q1, b_q2, b_a1, b_a2, b_max, b_sum,
                p_k + k_row * stride_kr * VEC, p_v + v_row * stride_vr * VEC, stride_kn, stride_vn,
                tl.where(q_counts & counts & v_counts, keys, 0),
                scale * LOG2E, log_weight * LOG2E, D, D1, D2, BN, VEC, EVEN_N, PRECISION,
            )  # fmt: skip
        b_scale = weight / tl.where(b_sum == 0.0, 1.0, b_sum)
        if p_masks is not None:
            b_scale *= tl.load(p_masks + tl.cast(term, tl.int64) * stride_mt + o_m, mask=m_m, other=0.0)
        b_t1 += b_a1 * b_scale[:, None]
        if D2 > 0:
            b_t2 += b_a2 * b_scale[:, None]
    store_rows(p_out, o_m, m_m, stride_on, o_d1, b_t1, D, VEC)
    if D2 > 0:
        store_rows(p_out, o_m, m_m, stride_on, D1 + tl.arange(0, D2), b_t2, D, VEC)
