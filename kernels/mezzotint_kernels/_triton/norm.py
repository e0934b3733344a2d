"""Group norm with scale, shift and SiLU, and the gated GELU: from memory once, to memory once."""

import triton
import triton.language as tl


@triton.jit
def _norm_silu_kernel(
    p_x, p_weight, p_bias, p_scale, p_shift, p_out, pixels, eps,
    GROUPS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One group of one sample, which lies in one run: x, out [B, C, pixels], C = GROUPS * WIDTH. Grid: B * GROUPS.

    weight, bias: [C] or None; scale, shift: [B, C] or None. The second reading comes from the L2 cache.
    """
    group = tl.program_id(0) % GROUPS
    b = tl.program_id(0) // GROUPS
    run = WIDTH * pixels
    p_x = p_x + tl.program_id(0).to(tl.int64) * run
    p_out = p_out + tl.program_id(0).to(tl.int64) * run
    o_i = tl.arange(0, BLOCK)
    mean = 0.0
    square = 0.0
    # Block by block, each about its own mean: no digits are lost where the mean is far from zero.
    # After Chan, Golub and LeVeque 1983, eq. 2.1.
    for start in range(0, run, BLOCK):
        m_i = start + o_i < run
        count = tl.minimum(run - start, BLOCK).to(tl.float32)
        b_x = tl.load(p_x + start + o_i, mask=m_i, other=0.0).to(tl.float32)
        part = tl.sum(b_x, 0) / count
        b_x = tl.where(m_i, b_x - part, 0.0)
        share = count / (start + count)
        off = part - mean
        square += tl.sum(b_x * b_x, 0) + off * off * start * share
        mean += off * share
    factor = 1.0 / tl.sqrt(square / run + eps)
    for channel in range(0, WIDTH):
        c = group * WIDTH + channel
        gain = factor
        if p_weight is not None:
            gain *= tl.load(p_weight + c).to(tl.float32)
        offset = 0.0
        if p_bias is not None:
            offset += tl.load(p_bias + c).to(tl.float32)
        if p_scale is not None:
            more = 1.0 + tl.load(p_scale + b * GROUPS * WIDTH + c).to(tl.float32)
            gain *= more
            offset *= more
        if p_shift is not None:
            offset += tl.load(p_shift + b * GROUPS * WIDTH + c).to(tl.float32)
        for start in range(0, pixels, BLOCK):
            o_p = channel * pixels + start + o_i
            m_p = start + o_i < pixels
            b_y = (tl.load(p_x + o_p, mask=m_p, other=0.0).to(tl.float32) - mean) * gain + offset
            b_y = b_y / (1.0 + tl.exp(-b_y))
            tl.store(p_out + o_p, b_y.to(p_out.dtype.element_ty), mask=m_p)


@triton.jit
def _geglu_kernel(p_x, p_out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """out [R, WIDTH] = a * gelu(b) for x [R, 2 * WIDTH] = (a, b), the exact GELU. Grid: R * cdiv(WIDTH, BLOCK)."""
    blocks: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // blocks).to(tl.int64)
    o_c = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    m_c = o_c < WIDTH
    p_row = p_x + row * (2 * WIDTH) + o_c
    b_a = tl.load(p_row, mask=m_c, other=0.0).to(tl.float32)
    b_g = tl.load(p_row + WIDTH, mask=m_c, other=0.0).to(tl.float32)
    b_y = b_a * (0.5 * b_g * (1.0 + tl.erf(b_g * 0.7071067811865476)))
    tl.store(p_out + row * WIDTH + o_c, b_y.to(p_out.dtype.element_ty), mask=m_c)
