"""Flash attention, backward: gradients for queries, keys and values.

With p = exp(s - lse), s the scaled and biased scores, and g the gradient of the output (Dao et al. 2022, alg. 4):

    dv = p^T g        dp = g v^T        delta = rowsum(out * g)
    ds = p * (dp - delta)        dq = scale ds k        dk = scale ds^T q

The scores are computed anew. One kernel walks along the queries for a block of keys (dk, dv), another along the
keys for a block of queries (dq): one product more than in a single kernel, but no atomic additions, so that the
same call gives the same bits. Layouts, units and D1 + D2 are as in `_triton/attention.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mezzotint_kernels._triton.attention import LOG2E, load_rows, store_rows


@triton.jit
def _delta_kernel(
    p_out, p_grad, p_delta, out_b, out_h, out_m, grad_b, grad_h, grad_m, H, M,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, BLOCK_M: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """delta [B, H, M] float32 = rowsum(out * grad). Programs: ceil(M / BLOCK_M) * B * H."""
    program = tl.program_id(0)
    blocks = tl.cdiv(M, BLOCK_M)
    head = program // blocks
    b = (head // H).to(tl.int64)
    h = (head % H).to(tl.int64)
    rows = (program % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_rows = rows < M
    p_out += (b * out_b + h * out_h) * VEC
    p_grad += (b * grad_b + h * grad_h) * VEC
    cols1 = tl.arange(0, D1)
    b_out = load_rows(p_out, rows, m_rows, out_m, cols1, D, VEC, False, D1 <= D)  # [BLOCK_M, D1]
    b_grad = load_rows(p_grad, rows, m_rows, grad_m, cols1, D, VEC, False, D1 <= D)
    b_delta = tl.sum(b_out.to(tl.float32) * b_grad.to(tl.float32), 1)
    if D2 > 0:
        cols2 = D1 + tl.arange(0, D2)
        b_out = load_rows(p_out, rows, m_rows, out_m, cols2, D, VEC, False, D1 + D2 == D)  # [BLOCK_M, D2]
        b_grad = load_rows(p_grad, rows, m_rows, grad_m, cols2, D, VEC, False, D1 + D2 == D)
        b_delta += tl.sum(b_out.to(tl.float32) * b_grad.to(tl.float32), 1)
    tl.store(p_delta + head.to(tl.int64) * M + rows, b_delta, mask=m_rows)


@triton.jit
def _load_lse(p_lse, rows, m_rows):
    """In base 2. +inf, which makes every probability 0, outside and where no key was left."""
    b_lse = tl.load(p_lse + rows, mask=m_rows, other=float("inf"))
    return tl.where(b_lse == -float("inf"), float("inf"), b_lse) * LOG2E


@triton.jit
def _bwd_kv_kernel(
    p_q, p_k, p_v, p_bias, p_key_bias, p_grad, p_lse, p_delta, p_dk, p_dv, scale,
    q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n, grad_b, grad_h, grad_m,
    dk_b, dk_h, dk_n, dv_b, dv_h, dv_n, bias_b, bias_h, bias_m, key_bias_b, key_bias_h,
    H, M, N, bias_columns,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    VEC: tl.constexpr, BIAS_VEC: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_KEY_BIAS: tl.constexpr,
    EVEN_M: tl.constexpr, EVEN_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv of one block of keys of one head, over all queries. Programs: ceil(N / BLOCK_N) * B * H.

    Scores are held transposed, [BLOCK_N, BLOCK_M], so that they are the left operand of both products.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(N, BLOCK_N)
    head = program // blocks
    b = (head // H).to(tl.int64)
    h = (head % H).to(tl.int64)
    keys = (program % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_keys = keys < N
    cols1 = tl.arange(0, D1)
    EVEN_D1: tl.constexpr = D1 <= D
    EVEN_D2: tl.constexpr = D1 + D2 == D
    p_q += (b * q_b + h * q_h) * VEC
    p_k += (b * k_b + h * k_h) * VEC
    p_v += (b * v_b + h * v_h) * VEC
    p_grad += (b * grad_b + h * grad_h) * VEC
    p_lse += head.to(tl.int64) * M
    p_delta += head.to(tl.int64) * M
    b_k1 = load_rows(p_k, keys, m_keys, k_n, cols1, D, VEC, EVEN_N, EVEN_D1)  # [BLOCK_N, D1]
    b_v1 = load_rows(p_v, keys, m_keys, v_n, cols1, D, VEC, EVEN_N, EVEN_D1)
    b_dk1 = tl.zeros([BLOCK_N, D1], tl.float32)
    b_dv1 = tl.zeros([BLOCK_N, D1], tl.float32)
    if D2 > 0:
        cols2 = D1 + tl.arange(0, D2)
        b_k2 = load_rows(p_k, keys, m_keys, k_n, cols2, D, VEC, EVEN_N, EVEN_D2)  # [BLOCK_N, D2]
        b_v2 = load_rows(p_v, keys, m_keys, v_n, cols2, D, VEC, EVEN_N, EVEN_D2)
        b_dk2 = tl.zeros([BLOCK_N, D2], tl.float32)
        b_dv2 = tl.zeros([BLOCK_N, D2], tl.float32)
    if HAS_BIAS:
        p_bias += (b * bias_b + h * bias_h) * BIAS_VEC
    if HAS_KEY_BIAS:
        p_key_bias += b * key_bias_b + h * key_bias_h
        b_key_bias = tl.load(p_key_bias + keys, mask=m_keys, other=0.0) * LOG2E  # [BLOCK_N]
    factor = scale * LOG2E
    for start in range(0, M, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        m_rows = rows < M
        b_q1 = load_rows(p_q, rows, m_rows, q_m, cols1, D, VEC, EVEN_M, EVEN_D1)  # [BLOCK_M, D1]
        b_g1 = load_rows(p_grad, rows, m_rows, grad_m, cols1, D, VEC, EVEN_M, EVEN_D1)
        b_s = tl.dot(b_k1, tl.trans(b_q1), input_precision=PRECISION)  # [BLOCK_N, BLOCK_M]
        b_dp = tl.dot(b_v1, tl.trans(b_g1), input_precision=PRECISION)  # [BLOCK_N, BLOCK_M]
        if D2 > 0:
            b_q2 = load_rows(p_q, rows, m_rows, q_m, cols2, D, VEC, EVEN_M, EVEN_D2)  # [BLOCK_M, D2]
            b_g2 = load_rows(p_grad, rows, m_rows, grad_m, cols2, D, VEC, EVEN_M, EVEN_D2)
            b_s = tl.dot(b_k2, tl.trans(b_q2), b_s, input_precision=PRECISION)
            b_dp = tl.dot(b_v2, tl.trans(b_g2), b_dp, input_precision=PRECISION)
        b_lse = _load_lse(p_lse, rows, m_rows)  # [BLOCK_M]
        b_delta = tl.load(p_delta + rows, mask=m_rows, other=0.0)
        b_s = b_s * factor
        if HAS_BIAS:
            p_block = p_bias + rows[None, :] * bias_m * BIAS_VEC + keys[:, None]
            m_block = m_rows[None, :] & (keys < bias_columns * BIAS_VEC)[:, None]
            b_s += tl.load(p_block, mask=m_block, other=0.0).to(tl.float32) * LOG2E
        if HAS_KEY_BIAS:
            b_s += b_key_bias[:, None]
        b_p = tl.exp2(b_s - b_lse[None, :])
        b_ds = (b_p * (b_dp - b_delta[None, :])).to(b_q1.dtype)
        b_p = b_p.to(b_q1.dtype)
        b_dv1 = tl.dot(b_p, b_g1, b_dv1, input_precision=PRECISION)
        b_dk1 = tl.dot(b_ds, b_q1, b_dk1, input_precision=PRECISION)
        if D2 > 0:
            b_dv2 = tl.dot(b_p, b_g2, b_dv2, input_precision=PRECISION)
            b_dk2 = tl.dot(b_ds, b_q2, b_dk2, input_precision=PRECISION)
    p_dk += (b * dk_b + h * dk_h) * VEC
    p_dv += (b * dv_b + h * dv_h) * VEC
    store_rows(p_dk, keys, m_keys, dk_n, cols1, b_dk1 * scale, D, VEC)
    store_rows(p_dv, keys, m_keys, dv_n, cols1, b_dv1, D, VEC)
    if D2 > 0:
        store_rows(p_dk, keys, m_keys, dk_n, cols2, b_dk2 * scale, D, VEC)
        store_rows(p_dv, keys, m_keys, dv_n, cols2, b_dv2, D, VEC)


@triton.jit
def _bwd_q_kernel(
    p_q, p_k, p_v, p_bias, p_key_bias, p_grad, p_lse, p_delta, p_dq, scale,
    q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n, grad_b, grad_h, grad_m,
    dq_b, dq_h, dq_m, bias_b, bias_h, bias_m, key_bias_b, key_bias_h,
    H, M, N, bias_columns,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    VEC: tl.constexpr, BIAS_VEC: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_KEY_BIAS: tl.constexpr,
    EVEN_M: tl.constexpr, EVEN_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq of one block of queries of one head, over all keys. Programs: ceil(M / BLOCK_M) * B * H."""
    program = tl.program_id(0)
    blocks = tl.cdiv(M, BLOCK_M)
    head = program // blocks
    b = (head // H).to(tl.int64)
    h = (head % H).to(tl.int64)
    rows = (program % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_rows = rows < M
    cols1 = tl.arange(0, D1)
    EVEN_D1: tl.constexpr = D1 <= D
    EVEN_D2: tl.constexpr = D1 + D2 == D
    p_q += (b * q_b + h * q_h) * VEC
    p_k += (b * k_b + h * k_h) * VEC
    p_v += (b * v_b + h * v_h) * VEC
    p_grad += (b * grad_b + h * grad_h) * VEC
    b_q1 = load_rows(p_q, rows, m_rows, q_m, cols1, D, VEC, EVEN_M, EVEN_D1)  # [BLOCK_M, D1]
    b_g1 = load_rows(p_grad, rows, m_rows, grad_m, cols1, D, VEC, EVEN_M, EVEN_D1)
    b_dq1 = tl.zeros([BLOCK_M, D1], tl.float32)
    if D2 > 0:
        cols2 = D1 + tl.arange(0, D2)
        b_q2 = load_rows(p_q, rows, m_rows, q_m, cols2, D, VEC, EVEN_M, EVEN_D2)  # [BLOCK_M, D2]
        b_g2 = load_rows(p_grad, rows, m_rows, grad_m, cols2, D, VEC, EVEN_M, EVEN_D2)
        b_dq2 = tl.zeros([BLOCK_M, D2], tl.float32)
    if HAS_BIAS:
        p_bias += (b * bias_b + h * bias_h) * BIAS_VEC
    if HAS_KEY_BIAS:
        p_key_bias += b * key_bias_b + h * key_bias_h
    b_lse = _load_lse(p_lse + head.to(tl.int64) * M, rows, m_rows)  # [BLOCK_M]
    b_delta = tl.load(p_delta + head.to(tl.int64) * M + rows, mask=m_rows, other=0.0)
    factor = scale * LOG2E
    for start in range(0, N, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        m_keys = keys < N
        b_k1 = load_rows(p_k, keys, m_keys, k_n, cols1, D, VEC, EVEN_N, EVEN_D1)  # [BLOCK_N, D1]
        b_v1 = load_rows(p_v, keys, m_keys, v_n, cols1, D, VEC, EVEN_N, EVEN_D1)
        b_s = tl.dot(b_q1, tl.trans(b_k1), input_precision=PRECISION)  # [BLOCK_M, BLOCK_N]
        b_dp = tl.dot(b_g1, tl.trans(b_v1), input_precision=PRECISION)
        if D2 > 0:
            b_k2 = load_rows(p_k, keys, m_keys, k_n, cols2, D, VEC, EVEN_N, EVEN_D2)  # [BLOCK_N, D2]
            b_v2 = load_rows(p_v, keys, m_keys, v_n, cols2, D, VEC, EVEN_N, EVEN_D2)
            b_s = tl.dot(b_q2, tl.trans(b_k2), b_s, input_precision=PRECISION)
            b_dp = tl.dot(b_g2, tl.trans(b_v2), b_dp, input_precision=PRECISION)
        b_s = b_s * factor
        if HAS_BIAS:
            p_block = p_bias + rows[:, None] * bias_m * BIAS_VEC + keys[None, :]
            m_block = m_rows[:, None] & (keys < bias_columns * BIAS_VEC)[None, :]
            b_s += tl.load(p_block, mask=m_block, other=-float("inf")).to(tl.float32) * LOG2E
        if HAS_KEY_BIAS:
            b_s += (tl.load(p_key_bias + keys, mask=m_keys, other=-float("inf")) * LOG2E)[None, :]
        if not EVEN_N:
            # Zero rows, but exp2(0 - lse) overflows where all scores are far below zero, and inf * 0 is no zero.
            b_s = tl.where(m_keys[None, :], b_s, -float("inf"))
        b_p = tl.exp2(b_s - b_lse[:, None])
        b_ds = (b_p * (b_dp - b_delta[:, None])).to(b_k1.dtype)
        b_dq1 = tl.dot(b_ds, b_k1, b_dq1, input_precision=PRECISION)
        if D2 > 0:
            b_dq2 = tl.dot(b_ds, b_k2, b_dq2, input_precision=PRECISION)
    p_dq += (b * dq_b + h * dq_h) * VEC
    store_rows(p_dq, rows, m_rows, dq_m, cols1, b_dq1 * scale, D, VEC)
    if D2 > 0:
        store_rows(p_dq, rows, m_rows, dq_m, cols2, b_dq2 * scale, D, VEC)
