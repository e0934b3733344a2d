"""What the chips have: limits of a multiprocessor, and peaks of the data sheets."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CHIPS", "LIMITS", "Chip", "Limits", "blocks_resident"]


@dataclass(frozen=True)
class Limits:
    """One multiprocessor (NVIDIA: SM, AMD: CU).

    registers: NVIDIA: of the multiprocessor; AMD: of a lane of one of its four SIMDs.
    shared: bytes of shared memory (LDS). shared_block: the most that one block may take.
    warps, blocks: that can be resident. lanes: threads of a warp (wavefront).
    """

    registers: int
    shared: int
    shared_block: int
    warps: int
    blocks: int
    lanes: int = 32


KIB = 1024
LIMITS = {  # CUDA C++ programming guide, "Compute capabilities"; AMD's CDNA3 ISA guide
    "sm80": Limits(65536, 164 * KIB, 163 * KIB, 64, 32),
    "sm86": Limits(65536, 100 * KIB, 99 * KIB, 48, 16),
    "sm89": Limits(65536, 100 * KIB, 99 * KIB, 48, 24),
    "sm90": Limits(65536, 228 * KIB, 227 * KIB, 64, 32),
    "sm100": Limits(65536, 228 * KIB, 227 * KIB, 64, 32),
    "sm120": Limits(65536, 100 * KIB, 99 * KIB, 48, 24),
    "gfx942": Limits(512, 64 * KIB, 64 * KIB, 32, 32, lanes=64),
}


@dataclass(frozen=True)
class Chip:
    """A chip at its data sheet's boost clock.

    units: multiprocessors. clock: Hz. matrix: dense fp16 operations a second. memory: bytes a second.
    """

    name: str
    arch: str
    units: int
    clock: float
    matrix: float
    memory: float


CHIPS = {
    "sm80": Chip("A100 80 GB SXM", "sm80", 108, 1.41e9, 312e12, 2.039e12),
    "sm90": Chip("H100 SXM", "sm90", 132, 1.83e9, 989e12, 3.35e12),
    "gfx942": Chip("MI300X", "gfx942", 304, 2.1e9, 1307e12, 5.3e12),
}


def blocks_resident(arch: str, registers: int, shared: int, warps: int) -> int:
    """Blocks that one multiprocessor can hold at a time; 0: not even one.

    registers: a thread; on AMD vector and accumulation registers together.
    """
    limits = LIMITS[arch]
    if shared > limits.shared_block:
        return 0
    if limits.lanes == 64:
        per_simd = min(limits.warps // 4, limits.registers // _up(max(registers, 1), 8))
        by_registers = per_simd * 4 // warps
        by_shared = limits.shared // max(shared, 1)
    else:
        by_registers = limits.registers // _up(max(registers, 1) * 32, 256) // warps
        by_shared = limits.shared // _up(shared + KIB, 128)  # 1 KiB a block is the system's
    return min(by_registers, by_shared, limits.warps // warps, limits.blocks)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
