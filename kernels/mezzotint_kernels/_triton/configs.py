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

# attention_forward: 128 queries and 8 warps read each key half as often as 64 and 4, and are clean to D128.
TILES |= _rows("attention_forward", (40, 64, 80, 128), NVIDIA, Tile(128, 64, warps=8))
TILES |= _rows("attention_forward", (160,), ("sm90", "sm100"), Tile(128, 64, warps=8))
# D160 on sm80: 128x64 spills 8 to 12 bytes where the sizes are odd.
TILES |= _rows("attention_forward", (160,), ("sm80",), Tile(64, 64, warps=8))
# gfx942 has 64 KiB of LDS, and two stages of 128 rows pass it.
TILES |= _rows("attention_forward", (40, 64, 80, 128, 160), AMD, Tile(64, 64, warps=4))
