"""Counter-based normals, bit for bit those of `mezzotint_kernels.philox`: the words, the transform, the layout.

Beside selects and bit operations only +, -, * and sqrt are used, each rounded as IEEE 754 says; compile with
`enable_fp_fusion=False`, or a fused multiply-add changes the last bits. Triton's own `tl.randn` will not do:
its logarithm, cosine and square root are the hardware's approximations.

    key       the sample's 64-bit seed
    counter   (element // 4 within one frame, frame, step, stream)

A sample is read as [C, F, P] with P pixels a frame; one frame, or no frames at all, is a flat run.
"""

import triton
import triton.language as tl

FLAT = tl.constexpr(0)
"""Layout: one frame; four neighbours share a counter."""
QUADS = tl.constexpr(1)
"""Layout: several frames of 4 k pixels; four neighbours share a counter."""
SINGLES = tl.constexpr(2)
"""Layout: several frames of any size; each element works out its own counter, so four times the work."""


@triton.jit
def log_uniform(b_bits):
    """log(u), u = (2 k + 1) / 2^24, k the top 23 of 32 bits. After Cephes' logf. uint32 -> float32"""
    b_u = ((b_bits >> 9) * 2 + 1).to(tl.float32) * 5.9604644775390625e-08
    b_pattern = b_u.to(tl.int32, bitcast=True)
    # The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    b_exponent = (b_pattern - 0x3F3504F3) >> 23
    b_f = (b_pattern - (b_exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    b_z = b_f * b_f
    b_y = b_f * 7.0376836292e-2 + -1.1514610310e-1
    b_y = b_y * b_f + 1.1676998740e-1
    b_y = b_y * b_f + -1.2420140846e-1
    b_y = b_y * b_f + 1.4249322787e-1
    b_y = b_y * b_f + -1.6668057665e-1
    b_y = b_y * b_f + 2.0000714765e-1
    b_y = b_y * b_f + -2.4999993993e-1
    b_y = b_y * b_f + 3.3333331174e-1
    b_e = b_exponent.to(tl.float32)
    b_y = b_y * b_f * b_z + b_e * -2.12194440e-4
    b_y = b_y - b_z * 0.5
    return (b_f + b_y) + b_e * 0.693359375


@triton.jit
def box_muller(b_radius_bits, b_angle_bits):
    """Two words to two normals: the top two bits of the angle are its quadrant, the next 24 the place in it."""
    b_radius = tl.sqrt_rn(log_uniform(b_radius_bits) * -2.0)
    b_place = ((b_angle_bits & 0x3FFFFFFF) >> 6).to(tl.int32) - 0x800000
    b_t = b_place.to(tl.float32) * 9.362675e-08
    b_w = b_t * b_t
    b_s = ((b_w * -1.9515295891e-4 + 8.3321608736e-3) * b_w + -1.6666654611e-1) * b_w * b_t + b_t
    b_c = (b_w * 2.443315711809948e-5 + -1.388731625493765e-3) * b_w + 4.166664568298827e-2
    b_c = b_c * b_w * b_w - b_w * 0.5 + 1.0
    b_quadrant = (b_angle_bits >> 30).to(tl.int32)
    odd = (b_quadrant & 1) == 1
    b_cosine = tl.where(odd, b_s, b_c)
    b_sine = tl.where(odd, b_c, b_s)
    b_cosine = tl.where((b_quadrant == 1) | (b_quadrant == 2), -b_cosine, b_cosine)
    b_sine = tl.where(b_quadrant >= 2, -b_sine, b_sine)
    return b_radius * b_cosine, b_radius * b_sine


@triton.jit
def words(key, b_word, b_frame, step, stream):
    """Philox4x32-10: four uint32 blocks of b_word's shape. key int64; step, stream: the bits of uint32."""
    b_zero = b_word * 0
    return tl.philox(
        key, b_word.to(tl.uint32), b_frame.to(tl.uint32), (b_zero + step).to(tl.uint32),
        (b_zero + stream).to(tl.uint32),
    )  # fmt: skip


@triton.jit
def place(o_i, frames, pixels, SHARED: tl.constexpr):
    """Element of a sample [C, F, P] -> (element within its frame, frame); frame 0 for all where SHARED."""
    o_line = o_i // pixels
    o_channel = o_line // frames
    o_frame = o_line - o_channel * frames
    o_element = o_channel * pixels + (o_i - o_line * pixels)
    if SHARED:
        o_frame = o_frame * 0
    return o_element, o_frame


@triton.jit
def normals(
    key, block, frames, pixels, step, stream,
    LAYOUT: tl.constexpr, SHARED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The normals of elements block * BLOCK .. + BLOCK - 1 of one sample, float32 [BLOCK]."""
    if LAYOUT == SINGLES:
        o_element, o_frame = place(block * BLOCK + tl.arange(0, BLOCK), frames, pixels, SHARED)
        b_w0, b_w1, b_w2, b_w3 = words(key, o_element // 4, o_frame, step, stream)
        first = (o_element & 2) == 0
        b_even, b_odd = box_muller(tl.where(first, b_w0, b_w2), tl.where(first, b_w1, b_w3))
        return tl.where((o_element & 1) == 0, b_even, b_odd)
    else:
        o_word = block * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
        o_frame = o_word * 0
        if LAYOUT == QUADS:
            o_element, o_frame = place(o_word * 4, frames, pixels, SHARED)
            o_word = o_element // 4
        b_w0, b_w1, b_w2, b_w3 = words(key, o_word, o_frame, step, stream)
        b_0, b_1 = box_muller(b_w0, b_w1)
        b_2, b_3 = box_muller(b_w2, b_w3)
        return tl.reshape(tl.join(tl.join(b_0, b_2), tl.join(b_1, b_3)), (BLOCK,))


@triton.jit(do_not_specialize=["step", "stream"])
def _normals_kernel(
    p_out, p_keys, n, frames, pixels, step, stream,
    LAYOUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Fill p_out [B, n], any float dtype, one rounding; p_keys int64 [B]. Grid: B * cdiv(n, BLOCK)."""
    blocks = tl.cdiv(n, BLOCK)
    b = tl.program_id(0) // blocks
    block = tl.program_id(0) % blocks
    o_i = block * BLOCK + tl.arange(0, BLOCK)
    b_z = normals(tl.load(p_keys + b), block, frames, pixels, step, stream, LAYOUT, False, BLOCK)
    tl.store(p_out + b.to(tl.int64) * n + o_i, b_z.to(p_out.dtype.element_ty), mask=o_i < n)
