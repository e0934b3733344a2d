"""Flash attention, forward: softmax(q k^T scale + bias) v without the scores ever reaching memory.

After Dao et al. 2022, "FlashAttention", and Dao 2023, "FlashAttention-2": one program computes one block of
queries and walks along the keys with a running maximum and sum. Three things are particular to it:

- Strides come in units of VEC elements (16 bytes), so `row * stride * VEC` is seen to be a multiple of 16
  bytes. With head size 40, 80 or 160 a plain stride is no multiple of 16 elements, which is what the JIT asks
  for before it believes in alignment, and every load would be of 2 bytes.
- A head size is the sum of two powers of two, D1 + D2 (40 = 32 + 16, 80 = 64 + 16, 160 = 128 + 32), not one
  padded up (64, 128, 256): a third fewer products, and registers enough.
- Scores stay unscaled until scale, shift by the maximum and change of base are one fused multiply-add. The scale
  must be positive, and the kernel compiled with `enable_fp_fusion=True`.

The order of the keys, and so every rounding, depends on neither the strides nor the number of programs.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def load_rows(
    p_base, rows, row_ok, stride, cols,
    D: tl.constexpr, VEC: tl.constexpr, EVEN_ROWS: tl.constexpr, EVEN_COLS: tl.constexpr,
):  # fmt: skip
    """[rows, cols] of a matrix whose rows are `stride` units of VEC elements apart; 0 outside it."""
    p_rows = p_base + rows[:, None] * stride * VEC + cols[None, :]
    if EVEN_ROWS and EVEN_COLS:
        return tl.load(p_rows)
    elif EVEN_COLS:
        return tl.load(p_rows, mask=row_ok[:, None], other=0.0)
    elif EVEN_ROWS:
        return tl.load(p_rows, mask=(cols < D)[None, :], other=0.0)
    else:
        return tl.load(p_rows, mask=row_ok[:, None] & (cols < D)[None, :], other=0.0)


@triton.jit
def store_rows(p_base, rows, row_ok, stride, cols, block, D: tl.constexpr, VEC: tl.constexpr):
    """The counterpart of `load_rows`; rows of a large output are addressed with 64 bits."""
    p_rows = p_base + rows.to(tl.int64)[:, None] * stride * VEC + cols[None, :]
    tl.store(p_rows, block.to(p_base.dtype.element_ty), mask=row_ok[:, None] & (cols < D)[None, :])


@triton.jit
def _fwd_kernel(
    p_q, p_k, p_v, p_bias, p_key_bias, p_out, p_lse, scale,
    q_b, q_h, q_m, k_b, k_h, k_n, v_b, v_h, v_n, out_b, out_h, out_m,
    bias_b, bias_h, bias_m, key_bias_b, key_bias_h,
    H, M, N, bias_columns,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    VEC: tl.constexpr, BIAS_VEC: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_KEY_BIAS: tl.constexpr,
    EVEN_M: tl.constexpr, EVEN_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head against all keys.

    Programs: ceil(M / BLOCK_M) * B * H; neighbours share their keys.
    q, out: [B, H, M, D]; k, v: [B, H, N, D]; unit last stride, the others in units of VEC elements.
    bias: [B, H, M, bias_columns], bias_columns >= N a multiple of BIAS_VEC, -inf from column N on; strides in
        units of BIAS_VEC elements, 0 where it broadcasts. key_bias: [B, H, N] float32, strides in elements.
    lse: [B, H, M] float32, contiguous: log(sum(exp(scores))), natural; -inf where every key is masked out.
    """
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
    MASKS: tl.constexpr = HAS_BIAS or HAS_KEY_BIAS  # a row may have had no key to look at yet
    p_q += (b * q_b + h * q_h) * VEC
    p_k += (b * k_b + h * k_h) * VEC
    p_v += (b * v_b + h * v_h) * VEC
    b_q1 = load_rows(p_q, rows, m_rows, q_m, cols1, D, VEC, EVEN_M, EVEN_D1)  # [BLOCK_M, D1]
    b_acc1 = tl.zeros([BLOCK_M, D1], tl.float32)
    if D2 > 0:
        cols2 = D1 + tl.arange(0, D2)
        b_q2 = load_rows(p_q, rows, m_rows, q_m, cols2, D, VEC, EVEN_M, EVEN_D2)  # [BLOCK_M, D2]
        b_acc2 = tl.zeros([BLOCK_M, D2], tl.float32)
    if HAS_BIAS:
        p_bias += (b * bias_b + h * bias_h) * BIAS_VEC
    if HAS_KEY_BIAS:
        p_key_bias += b * key_bias_b + h * key_bias_h
    b_max = tl.full([BLOCK_M], -float("inf"), tl.float32)  # of the scaled scores, in base 2
    b_sum = tl.zeros([BLOCK_M], tl.float32)
    factor = scale * LOG2E
    for start in range(0, N, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        m_keys = keys < N
        b_k1 = load_rows(p_k, keys, m_keys, k_n, cols1, D, VEC, EVEN_N, EVEN_D1)  # [BLOCK_N, D1]
        b_s = tl.dot(b_q1, tl.trans(b_k1), input_precision=PRECISION)  # [BLOCK_M, BLOCK_N]
        if D2 > 0:
            b_k2 = load_rows(p_k, keys, m_keys, k_n, cols2, D, VEC, EVEN_N, EVEN_D2)  # [BLOCK_N, D2]
            b_s = tl.dot(b_q2, tl.trans(b_k2), b_s, input_precision=PRECISION)
        if MASKS:
            b_s = b_s * factor
            if HAS_BIAS:
                p_block = p_bias + rows[:, None] * bias_m * BIAS_VEC + keys[None, :]
                m_block = m_rows[:, None] & (keys < bias_columns * BIAS_VEC)[None, :]
                b_s += tl.load(p_block, mask=m_block, other=-float("inf")).to(tl.float32) * LOG2E
            if HAS_KEY_BIAS:
                b_s += (tl.load(p_key_bias + keys, mask=m_keys, other=-float("inf")) * LOG2E)[None, :]
            b_new = tl.maximum(b_max, tl.max(b_s, 1))
            b_shift = tl.where(b_new == -float("inf"), 0.0, b_new)
            b_p = tl.exp2(b_s - b_shift[:, None])
        else:
            if not EVEN_N:
                b_s = tl.where(m_keys[None, :], b_s, -float("inf"))
            # Scaling is monotone in rounding too, so this is the maximum of the scaled scores.
            b_new = tl.maximum(b_max, tl.max(b_s, 1) * factor)
            b_shift = b_new
            b_p = tl.exp2(b_s * factor - b_shift[:, None])
        b_keep = tl.exp2(b_max - b_shift)
        b_sum = b_sum * b_keep + tl.sum(b_p, 1)
        b_v1 = load_rows(p_v, keys, m_keys, v_n, cols1, D, VEC, EVEN_N, EVEN_D1)  # [BLOCK_N, D1]
        b_acc1 = tl.dot(b_p.to(b_v1.dtype), b_v1, b_acc1 * b_keep[:, None], input_precision=PRECISION)
        if D2 > 0:
            b_v2 = load_rows(p_v, keys, m_keys, v_n, cols2, D, VEC, EVEN_N, EVEN_D2)  # [BLOCK_N, D2]
            b_acc2 = tl.dot(b_p.to(b_v2.dtype), b_v2, b_acc2 * b_keep[:, None], input_precision=PRECISION)
        b_max = b_new
    b_inverse = 1.0 / tl.where(b_sum == 0.0, 1.0, b_sum)  # a row without keys is zeros
    p_out += (b * out_b + h * out_h) * VEC
    store_rows(p_out, rows, m_rows, out_m, cols1, b_acc1 * b_inverse[:, None], D, VEC)
    if D2 > 0:
        store_rows(p_out, rows, m_rows, out_m, cols2, b_acc2 * b_inverse[:, None], D, VEC)
    b_lse = tl.where(b_sum == 0.0, -float("inf"), (b_max + tl.log2(b_sum)) * LN2)
    tl.store(p_lse + head.to(tl.int64) * M + rows, b_lse, mask=m_rows)
