"""The table of tiles: {(kernel, head size, architecture): Tile}, each with its reason.

A row is here only if the audit compiles every case that uses it without a spilled register, within the
chip's shared memory and, where the kernel has a dot, with matrix instructions. No row has been timed on
a GPU by us: between clean tiles the choice follows the issue bound of the hot loop and the occupancy.

kernel: a name of ours, one per @triton.jit entry and way of compiling it; a suffix ".fp32" is the row for
    float32 inputs (products as three TF32 ones).
head size: 0 where a kernel has none.
No row for an architecture: dispatch takes the reference there.
"""

from __future__ import annotations

from mezzotint_kernels.tiles import Tile

__all__ = ["TILES"]

NVIDIA = ("sm80", "sm90", "sm100")
AMD = ("gfx942",)


def _rows(
    kernel: str, sizes: tuple[int, ...], archs: tuple[str, ...], tile: Tile
) -> dict[tuple[str, int, str], Tile]:
    return {(kernel, size, arch): tile for size in sizes for arch in archs}


TILES: dict[tuple[str, int, str], Tile] = {}

# One block of rows per kernel. Later rows replace earlier ones.

# attention_forward: 128 queries and 8 warps read each key half as often as 64 and 4, and are clean but for D160.
TILES |= _rows("attention_forward", (40, 64, 80, 128, 160), NVIDIA, Tile(128, 64, warps=8))
# D160 on sm80: 128x64 and 64x64 spill where the sizes are odd.
TILES |= _rows("attention_forward", (160,), ("sm80",), Tile(128, 32, warps=8))
TILES |= _rows("attention_forward", (64,), AMD, Tile(128, 64, warps=8))
# D128 on gfx942: 128x64 spills two scalar registers where the sizes are odd.
TILES |= _rows("attention_forward", (128,), AMD, Tile(128, 32, warps=8))
# The others on gfx942: 64 keys spill 1 to 20 scalar registers where there is a key bias, and for D160 128x64 is
# beyond the 64 KiB of LDS; with 128x32 D40 and D80 read the last 8 or 16 columns by 2 bytes.
TILES |= _rows("attention_forward", (40, 80, 160), AMD, Tile(64, 32, warps=4))

# float32: each product is three (AMD: six), and their operands fill the registers. No row: D128 (all tiles tried
# spill on sm80 and sm90), D160 (likewise on sm90), sm100 (not tried).
TILES |= _rows("attention_forward.fp32", (40, 64, 80), ("sm90", *AMD), Tile(64, 32, warps=4))
TILES |= _rows("attention_forward.fp32", (40,), ("sm80",), Tile(64, 32, warps=4))
TILES |= _rows("attention_forward.fp32", (64,), ("sm80",), Tile(64, 32, warps=8))
TILES |= _rows("attention_forward.fp32", (80,), ("sm80",), Tile(64, 16, warps=4, stages=1))

# A bias of its own for each query is one more block to hold. No row: sm80 from D128 on, sm100, gfx942 (not tried).
TILES |= _rows("attention_forward.bias", (40, 64, 80), ("sm80", "sm90"), Tile(128, 64, warps=8))
TILES |= _rows("attention_forward.bias", (128, 160), ("sm90",), Tile(128, 64, warps=8))

# attention_backward_kv keeps four blocks of a head in registers: keys, values and their gradients. From D128 on
# (sm80: D64) that takes 8 warps. sm80, D80: 64x64 spills by 4 warps and by 8. sm80, D160: every tile tried spills.
TILES |= _rows("attention_backward_kv", (40, 64, 80), NVIDIA, Tile(64, 64, warps=4))
TILES |= _rows("attention_backward_kv", (128,), NVIDIA, Tile(64, 64, warps=8))
TILES |= _rows("attention_backward_kv", (160,), ("sm90", "sm100"), Tile(64, 64, warps=8))
TILES |= _rows("attention_backward_kv", (64,), ("sm80",), Tile(64, 64, warps=8))
TILES |= _rows("attention_backward_kv", (80,), ("sm80",), Tile(64, 32, warps=4))
# gfx942: two stages are held in registers, which are wanted for the accumulators.
TILES |= _rows("attention_backward_kv", (64, 80), AMD, Tile(64, 64, warps=4, stages=1))
TILES |= _rows("attention_backward_kv", (40, 128, 160), AMD, Tile(64, 32, warps=4, stages=1))

# attention_backward_q keeps three blocks: queries, the output's gradient and their own.
TILES |= _rows("attention_backward_q", (40, 64, 80, 128, 160), NVIDIA, Tile(64, 64, warps=4))
TILES |= _rows("attention_backward_q", (160,), ("sm80",), Tile(64, 32, warps=4))
# D160 on sm100: ptxas by itself takes 48 registers for the row sums and spills 16 bytes; so a cap that is none.
TILES |= _rows("attention_backward_q", (160,), ("sm100",), Tile(64, 64, warps=4, maxnreg=255))
TILES |= _rows("attention_backward_q", (40, 64, 80), AMD, Tile(64, 64, warps=4, stages=1))
TILES |= _rows("attention_backward_q", (128, 160), AMD, Tile(64, 32, warps=4, stages=1))

# attention_indexed: attention's tiles where the table's loop around them leaves the registers, half the rows on
# sm80 for D128. No row, so the reference: sm80 D160 (six tiles spill 8 to 48 bytes), sm100 D128 (128x64 spills 40
# bytes; no other was tried).
TILES |= _rows("attention_indexed", (40, 64, 80), NVIDIA, Tile(128, 64, warps=8))
TILES |= _rows("attention_indexed", (128,), ("sm80",), Tile(64, 64, warps=8))
TILES |= _rows("attention_indexed", (128, 160), ("sm90",), Tile(128, 64, warps=8))
# sm100 D160 in two stages spills 248 bytes at 128x64.
TILES |= _rows("attention_indexed", (160,), ("sm100",), Tile(64, 32, warps=8, stages=1))
# gfx942 with 64 keys spills 3 to 33 scalar registers.
TILES |= _rows("attention_indexed", (40, 64, 80, 128, 160), AMD, Tile(64, 32, warps=4))
# float32: 64x32 spills on sm80 from D64, on sm90 from D80; sm100 and gfx942 were not tried.
TILES |= _rows("attention_indexed.fp32", (40,), ("sm80", "sm90"), Tile(64, 32, warps=4))
TILES |= _rows("attention_indexed.fp32", (64,), ("sm90",), Tile(64, 32, warps=4))

# attention_terms keeps a second accumulator, so half of the queries, or more warps for them, and on sm80 half of
# the keys. No row: sm80 D160 (five tiles spill 64 to 216 bytes), sm100 D80 (64x64, 4 warps: 240), float32 (not
# tried).
TILES |= _rows("attention_terms", (40,), ("sm80",), Tile(64, 64, warps=4))
TILES |= _rows("attention_terms", (64, 80), ("sm80",), Tile(64, 32, warps=4))
TILES |= _rows("attention_terms", (40, 64, 80), ("sm90",), Tile(64, 64, warps=4))
TILES |= _rows("attention_terms", (40, 64), ("sm100",), Tile(64, 64, warps=4))
TILES |= _rows("attention_terms", (128,), NVIDIA, Tile(64, 64, warps=8))
TILES |= _rows("attention_terms", (160,), ("sm90",), Tile(64, 64, warps=8))
TILES |= _rows("attention_terms", (160,), ("sm100",), Tile(64, 32, warps=8, stages=1))
# gfx942 with 32 keys spills 1 to 17 scalar registers but for D64; with 16, D40 and D80 read 2 bytes at a time.
TILES |= _rows("attention_terms", (64,), AMD, Tile(64, 32, warps=4))
TILES |= _rows("attention_terms", (128, 160), AMD, Tile(64, 16, warps=4))

# noise_step, normals: 512 elements and 4 warps read 16 bytes a thread of float32, and 8 of float16. With 1,024
# elements float16 would be read 16 bytes a thread too, but the two layouts would meet in shared memory.
TILES |= _rows("noise_step", (0,), NVIDIA, Tile(512))
TILES |= _rows("normals", (0,), NVIDIA, Tile(512))
# A wavefront has 64 lanes: two of them for the same 16 bytes a thread; four would load a mask of bytes by twos.
TILES |= _rows("noise_step", (0,), AMD, Tile(512, warps=2))
TILES |= _rows("normals", (0,), AMD, Tile(512, warps=2))
# guidance_moments: its block is fixed, because the order of the sums is part of the result.
TILES |= _rows("guidance_moments", (0,), NVIDIA, Tile(1024))
# With 4 wavefronts gfx942's compiler takes all 512 registers for the sums and spills 68 bytes; with 2, 268.
TILES |= _rows("guidance_moments", (0,), AMD, Tile(1024, warps=2))
# norm_silu: a channel of 64x64 in two blocks. geglu: widths are 1,280, 2,560 and 5,120.
TILES |= _rows("norm_silu", (0,), (*NVIDIA, *AMD), Tile(2048))
TILES |= _rows("geglu", (0,), (*NVIDIA, *AMD), Tile(1024))

# temporal: 4 pixels of 16 frames, or 2 of 32, are 64 rows for 4 warps. It has no loop, so nothing to stage.
TILES |= _rows("temporal", (40, 64, 80, 128, 160), (*NVIDIA, *AMD), Tile(4, stages=1))
TILES |= _rows("temporal_32", (40, 64, 80, 128, 160), (*NVIDIA, *AMD), Tile(2, stages=1))
# Three TF32 products need three copies of each operand; at 32 frames even D64 spills (28 to 160 bytes): no rows.
TILES |= _rows("temporal.fp32", (40, 64, 80), (*NVIDIA, *AMD), Tile(4, stages=1))

# p2p: 64 queries by all 80 token columns. Float32 spills at every size (D40 on sm80: 216 bytes): no rows.
TILES |= _rows("p2p", (64, 80), ("sm80",), Tile(64, stages=1))
TILES |= _rows("p2p", (128,), ("sm80",), Tile(64, warps=8, stages=1))
# D40: 64 queries spill 8 bytes at odd sizes with words and a bias; 8 warps would read the last 13 tokens by 2
# bytes.
TILES |= _rows("p2p", (40,), ("sm80",), Tile(32, stages=1))
# D160 on sm80 spills 24 to 160 bytes however it is cut; two launches of torch's attention serve there.
TILES |= _rows("p2p", (40, 64, 80, 128, 160), ("sm90", "sm100", *AMD), Tile(64, stages=1))
# The last 13 tokens' last 16 columns are one element a lane of 4 wavefronts, and two of 2.
TILES |= _rows("p2p", (40, 80), AMD, Tile(64, warps=2, stages=1))
