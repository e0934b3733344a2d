"""One sampling step in one launch, bit for bit `noise_step_reference`: inputs are read once, results written once.

    g   = (sum_k w_k m_k) f                             guidance; f rescales it, sample by sample
    x0  = clamp(ax x + am g, lo, hi)
    out = cx x + cg g + c0 x0 + sum_j ch_j h_j + cz z
    out = m out + (1 - m) (k0 known + kz z')

in this order, in float32, every product and sum rounded; compile with `enable_fp_fusion=False`. The numbers come
from a row of float32 in device memory, so that a new step needs no new compile. Which terms exist at all is known
when compiling: a term left out is not read, and may be infinite.

    row   0-3 w   4 ax   5 am   6 lo   7 hi   8 cx   9 cg   10 c0   11-13 ch   14 cz   15 k0   16 kz
          17 scale of the next input   18 rescale   19 1 - rescale
"""

import triton
import triton.language as tl

from mezzotint_kernels._triton.philox import normals

NONE = tl.constexpr(0)
GIVEN = tl.constexpr(1)
"""Noise is a tensor."""
DRAWN = tl.constexpr(2)
"""Noise is drawn in registers."""


@triton.jit
def plus(b_total, p_row, b_x, AT: tl.constexpr, USED: tl.constexpr, BEFORE: tl.constexpr):
    """Add row[AT] * b_x if the bit AT of USED is set; BEFORE: the bits of the terms that come before it."""
    if USED & (1 << AT):
        b_term = b_x * tl.load(p_row + AT)
        if USED & BEFORE:
            b_total = b_total + b_term
        else:
            b_total = b_term
    return b_total


@triton.jit
def load(p_x, base, o_i, m_i):
    """A block of a sample as float32 [BLOCK]."""
    return tl.load(p_x + base + o_i, mask=m_i, other=0.0).to(tl.float32)


@triton.jit
def guidance(p_m0, p_m1, p_m2, p_m3, p_row, base, o_i, m_i, OUTPUTS: tl.constexpr):
    """The weighted sum of one to four outputs, [BLOCK]."""
    b_g = load(p_m0, base, o_i, m_i) * tl.load(p_row)
    if OUTPUTS > 1:
        b_g = b_g + load(p_m1, base, o_i, m_i) * tl.load(p_row + 1)
    if OUTPUTS > 2:
        b_g = b_g + load(p_m2, base, o_i, m_i) * tl.load(p_row + 2)
    if OUTPUTS > 3:
        b_g = b_g + load(p_m3, base, o_i, m_i) * tl.load(p_row + 3)
    return b_g


@triton.jit(do_not_specialize=["step", "stream", "known_step", "known_stream"])
def _step_kernel(
    p_x, p_m0, p_m1, p_m2, p_m3, p_h0, p_h1, p_h2, p_noise, p_mask, p_known, p_known_noise,
    p_row, p_factor, p_keys, p_known_keys, p_out, p_x0, p_next,
    n, row_stride, mask_stride, mask_period, frames, pixels, step, stream, known_step, known_stream,
    OUTPUTS: tl.constexpr, USED: tl.constexpr, CLAMP: tl.constexpr, NOISE: tl.constexpr, BLEND: tl.constexpr,
    KNOWN_NOISE: tl.constexpr, LAYOUT: tl.constexpr, SHARED: tl.constexpr, KNOWN_SHARED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK elements of sample b. Grid: B * cdiv(n, BLOCK).

    x, m0..3, h0..2, noise, known, known_noise, out, x0, next: [B, n], any float dtype of 32 bits or fewer; None
        where not used. mask: element i of sample b is p_mask[b * mask_stride + i % mask_period].
    row: float32, sample b's begins at b * row_stride; factor: float32 [B], or None; keys: int64 [B].
    USED: one bit for each number of the row whose term exists. frames, pixels, LAYOUT, SHARED: as in `normals`.
    """
    blocks = tl.cdiv(n, BLOCK)
    b = tl.program_id(0) // blocks
    block = tl.program_id(0) % blocks
    base = b.to(tl.int64) * n
    o_i = block * BLOCK + tl.arange(0, BLOCK)
    m_i = o_i < n
    p_row = p_row + b * row_stride
    b_x = load(p_x, base, o_i, m_i)
    b_g = guidance(p_m0, p_m1, p_m2, p_m3, p_row, base, o_i, m_i, OUTPUTS)
    if p_factor is not None:
        b_g = b_g * tl.load(p_factor + b)
    b_zero = tl.zeros([BLOCK], tl.float32)
    b_x0 = plus(b_zero, p_row, b_x, 4, USED, 0)
    b_x0 = plus(b_x0, p_row, b_g, 5, USED, 0x10)
    if CLAMP:
        b_x0 = tl.maximum(b_x0, tl.load(p_row + 6), propagate_nan=tl.PropagateNan.ALL)
        b_x0 = tl.minimum(b_x0, tl.load(p_row + 7), propagate_nan=tl.PropagateNan.ALL)
    tl.store(p_x0 + base + o_i, b_x0.to(p_x0.dtype.element_ty), mask=m_i)
    b_out = plus(b_zero, p_row, b_x, 8, USED, 0)
    b_out = plus(b_out, p_row, b_g, 9, USED, 0x100)
    b_out = plus(b_out, p_row, b_x0, 10, USED, 0x300)
    if p_h0 is not None:
        b_out = plus(b_out, p_row, load(p_h0, base, o_i, m_i), 11, USED, 0x700)
    if p_h1 is not None:
        b_out = plus(b_out, p_row, load(p_h1, base, o_i, m_i), 12, USED, 0xF00)
    if p_h2 is not None:
        b_out = plus(b_out, p_row, load(p_h2, base, o_i, m_i), 13, USED, 0x1F00)
    if NOISE == GIVEN:
        b_out = plus(b_out, p_row, load(p_noise, base, o_i, m_i), 14, USED, 0x3F00)
    elif NOISE == DRAWN:
        key = tl.load(p_keys + b)
        b_z = normals(key, block, frames, pixels, step, stream, LAYOUT, SHARED, BLOCK)
        b_out = plus(b_out, p_row, b_z, 14, USED, 0x3F00)
    if BLEND:
        b_known = b_zero
        if p_known is not None:
            b_known = plus(b_known, p_row, load(p_known, base, o_i, m_i), 15, USED, 0)
        if KNOWN_NOISE == GIVEN:
            b_known = plus(b_known, p_row, load(p_known_noise, base, o_i, m_i), 16, USED, 0x8000)
        elif KNOWN_NOISE == DRAWN:
            key = tl.load(p_known_keys + b)
            b_z = normals(key, block, frames, pixels, known_step, known_stream, LAYOUT, KNOWN_SHARED, BLOCK)
            b_known = plus(b_known, p_row, b_z, 16, USED, 0x8000)
        b_mask = tl.load(p_mask + b.to(tl.int64) * mask_stride + o_i % mask_period, mask=m_i, other=0)
        b_mask = b_mask.to(tl.float32)
        b_out = b_mask * b_out + (1.0 - b_mask) * b_known
    tl.store(p_out + base + o_i, b_out.to(p_out.dtype.element_ty), mask=m_i)
    if p_next is not None:
        b_next = b_out * tl.load(p_row + 17)
        tl.store(p_next + base + o_i, b_next.to(p_next.dtype.element_ty), mask=m_i)


@triton.jit
def tree_sum(b_x, LEVELS: tl.constexpr):
    """The sum of 2^LEVELS numbers, neighbours first, then neighbouring sums: the one order on every device.

    `tl.sum` would add in an order of the compiler's choosing.
    """
    for _ in tl.static_range(LEVELS):
        b_left, b_right = tl.split(tl.reshape(b_x, (b_x.shape[0] // 2, 2)))
        b_x = b_left + b_right
    return tl.sum(b_x, 0)


@triton.jit
def moments(b_x, m_i, count, LEVELS: tl.constexpr):
    """Sum of the first `count` numbers, and of their squared deviations from their mean. Zero beyond them."""
    total = tree_sum(tl.where(m_i, b_x, 0.0), LEVELS)
    b_off = tl.where(m_i, b_x - tl.div_rn(total, count), 0.0)
    return total, tree_sum(b_off * b_off, LEVELS)


@triton.jit
def _moments_kernel(
    p_m0, p_m1, p_m2, p_m3, p_row, p_parts, n, row_stride, parts,
    OUTPUTS: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """The moments of one block of 2^LEVELS elements of one sample: of m0 and of the guided output.

    p_parts: float32 [B, 4, parts]: sum and squared deviations of m0, then of g. Grid: B * parts.
    """
    b = tl.program_id(0) // parts
    block = tl.program_id(0) % parts
    base = b.to(tl.int64) * n
    o_i = block * (1 << LEVELS) + tl.arange(0, 1 << LEVELS)
    m_i = o_i < n
    b_g = guidance(p_m0, p_m1, p_m2, p_m3, p_row + b * row_stride, base, o_i, m_i, OUTPUTS)
    count = tl.cast(tl.minimum(n - block * (1 << LEVELS), 1 << LEVELS), tl.float32)
    sum_m, square_m = moments(load(p_m0, base, o_i, m_i), m_i, count, LEVELS)
    sum_g, square_g = moments(b_g, m_i, count, LEVELS)
    p_part = p_parts + b * 4 * parts + block
    tl.store(p_part, sum_m)
    tl.store(p_part + parts, square_m)
    tl.store(p_part + 2 * parts, sum_g)
    tl.store(p_part + 3 * parts, square_g)


@triton.jit
def spread(p_part, n, parts, BLOCK: tl.constexpr, LEVELS: tl.constexpr):
    """Squared deviations from the mean of a whole sample, from the moments of its blocks: [2, parts] at p_part."""
    o_p = tl.arange(0, 1 << LEVELS)
    m_p = o_p < parts
    b_sum = tl.load(p_part + o_p, mask=m_p, other=0.0)
    b_square = tl.load(p_part + parts + o_p, mask=m_p, other=0.0)
    b_count = tl.minimum(n - o_p * BLOCK, BLOCK).to(tl.float32)
    mean = tl.div_rn(tree_sum(b_sum, LEVELS), tl.cast(n, tl.float32))
    b_off = tl.div_rn(b_sum, b_count) - mean
    return tree_sum(tl.where(m_p, b_square + b_off * b_off * b_count, 0.0), LEVELS)


@triton.jit
def _factor_kernel(
    p_parts, p_row, p_factor, n, row_stride, parts, BLOCK: tl.constexpr, LEVELS: tl.constexpr
):  # fmt: skip
    """From the moments of sample b's blocks the factor of its guidance. 2^LEVELS >= parts. Grid: B."""
    b = tl.program_id(0)
    p_part = p_parts + b * 4 * parts
    spread_m = spread(p_part, n, parts, BLOCK, LEVELS)
    spread_g = spread(p_part + 2 * parts, n, parts, BLOCK, LEVELS)
    ratio = tl.sqrt_rn(tl.div_rn(spread_m, spread_g))
    p_row = p_row + b * row_stride
    tl.store(p_factor + b, ratio * tl.load(p_row + 18) + tl.load(p_row + 19))
