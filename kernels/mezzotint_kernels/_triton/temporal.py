"""Attention over the frames of a clip, read by strides from [B, F, P, H, D]; several pixels a program.

A clip has few frames, so one pixel's attention is one small product: PB pixels are a batch of products in one
three-dimensional dot. Strides come in units of VEC elements (16 bytes where the tensor allows it), so that the
alignment of a row of 40 or 80 numbers can be proved. A head of D numbers is cut in two powers of two, D1 + D2.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _load_block(p, o_p, o_f, m_r, s_p, s_f, o_c, D: tl.constexpr, VEC: tl.constexpr, WHOLE: tl.constexpr):
    # [PB, FP, D1 or D2]; WHOLE: no column is beyond the head's D
    at = p + (o_p[:, None, None] * s_p + o_f[None, :, None] * s_f) * VEC + o_c[None, None, :]
    if WHOLE:
        return tl.load(at, mask=m_r[:, :, None], other=0.0)
    return tl.load(at, mask=m_r[:, :, None] & (o_c < D)[None, None, :], other=0.0)


@triton.jit
def _store_block(p, o_p, o_f, m_r, s_p, s_f, o_c, b_o, D: tl.constexpr, VEC: tl.constexpr, WHOLE: tl.constexpr):
    at = p + (o_p[:, None, None] * s_p + o_f[None, :, None] * s_f) * VEC + o_c[None, None, :]
    m_o = m_r[:, :, None]
    if not WHOLE:
        m_o = m_o & (o_c < D)[None, None, :]
    tl.store(at, b_o.to(p.dtype.element_ty), mask=m_o)


@triton.jit
def _fwd_kernel(
    p_q, p_k, p_v, p_bias, p_o, scale,
    s_qb, s_qf, s_qp, s_qh, s_kb, s_kf, s_kp, s_kh, s_vb, s_vf, s_vp, s_vh, s_ob, s_of, s_op, s_oh, s_bb, s_bh,
    P, H, F, BLOCKS,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, FP: tl.constexpr, PB: tl.constexpr, VEC: tl.constexpr,
    CAUSAL: tl.constexpr, BIAS: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """One program: PB pixels of one sample and head. Grid: B * BLOCKS * H, heads fastest: they lie side by side.

    p_q, p_k, p_v, p_o: [B, F, P, H, D] by strides in units of VEC elements; unit last stride.
    p_bias: float32 rows [F, F] at s_bb, s_bh (in elements), added to the logits where BIAS.
    FP: frames, rounded up to a power of two, at least 16. BLOCKS: of PB pixels in P.
    """
    pid = tl.program_id(0).to(tl.int64)
    h = pid % H
    block = (pid // H) % BLOCKS
    b = pid // H // BLOCKS
    o_p = block * PB + tl.arange(0, PB)  # [PB], int64
    o_f = tl.arange(0, FP)
    o_f64 = o_f.to(tl.int64)
    m_r = (o_p < P)[:, None] & (o_f < F)[None, :]  # [PB, FP]
    o_1 = tl.arange(0, D1)
    WHOLE_1: tl.constexpr = D1 <= D
    WHOLE_2: tl.constexpr = D1 + D2 == D
    p_q += (b * s_qb + h * s_qh) * VEC
    p_k += (b * s_kb + h * s_kh) * VEC
    p_v += (b * s_vb + h * s_vh) * VEC
    p_o += (b * s_ob + h * s_oh) * VEC
    # [PB, FP, D1]
    b_q1 = _load_block(p_q, o_p, o_f64, m_r, s_qp, s_qf, o_1, D, VEC, WHOLE_1)
    b_k1 = _load_block(p_k, o_p, o_f64, m_r, s_kp, s_kf, o_1, D, VEC, WHOLE_1)
    b_v1 = _load_block(p_v, o_p, o_f64, m_r, s_vp, s_vf, o_1, D, VEC, WHOLE_1)
    # [PB, FP queries, FP keys]
    b_s = tl.dot(b_q1, tl.permute(b_k1, (0, 2, 1)), input_precision=PREC)
    if D2 > 0:
        # [PB, FP, D2]
        o_2 = D1 + tl.arange(0, D2)
        b_q2 = _load_block(p_q, o_p, o_f64, m_r, s_qp, s_qf, o_2, D, VEC, WHOLE_2)
        b_k2 = _load_block(p_k, o_p, o_f64, m_r, s_kp, s_kf, o_2, D, VEC, WHOLE_2)
        b_v2 = _load_block(p_v, o_p, o_f64, m_r, s_vp, s_vf, o_2, D, VEC, WHOLE_2)
        b_s = tl.dot(b_q2, tl.permute(b_k2, (0, 2, 1)), b_s, input_precision=PREC)
    b_s = b_s * (scale * LOG2E)
    m_s = (o_f < F)[None, :]
    if BIAS:
        # [FP, FP]
        at = p_bias + b * s_bb + h * s_bh + o_f[:, None] * F + o_f[None, :]
        b_bias = tl.load(at, mask=(o_f < F)[:, None] & m_s, other=0.0)
        b_s += (b_bias * LOG2E)[None, :, :]
    if CAUSAL:
        m_s = m_s & (o_f[:, None] >= o_f[None, :])
    b_s = tl.where(m_s[None, :, :], b_s, -float("inf"))
    b_top = tl.max(b_s, 2)
    if BIAS:
        b_top = tl.where(b_top == -float("inf"), 0.0, b_top)  # a bias may mask every key of a frame
    b_p = tl.exp2(b_s - b_top[:, :, None])
    b_sum = tl.sum(b_p, 2)
    if BIAS:
        b_sum = tl.where(b_sum == 0.0, 1.0, b_sum)
    # Divided by after the product, so that the largest exponential, 1, is not rounded.
    b_inverse = (1.0 / b_sum)[:, :, None]
    b_p = b_p.to(b_v1.dtype)
    b_o1 = tl.dot(b_p, b_v1, input_precision=PREC) * b_inverse
    _store_block(p_o, o_p, o_f64, m_r, s_op, s_of, o_1, b_o1, D, VEC, WHOLE_1)
    if D2 > 0:
        b_o2 = tl.dot(b_p, b_v2, input_precision=PREC) * b_inverse
        _store_block(p_o, o_p, o_f64, m_r, s_op, s_of, o_2, b_o2, D, VEC, WHOLE_2)
