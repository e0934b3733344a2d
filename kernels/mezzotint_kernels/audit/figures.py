"""A compiled case in figures, and what is wrong with it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mezzotint_kernels.audit.build import compile_case, disassemble
from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.audit.chips import LIMITS, blocks_resident
from mezzotint_kernels.audit.elf import UnreadableError, read_cubin
from mezzotint_kernels.audit.machine import Mix, mix, read_amdgcn, read_sass
from mezzotint_kernels.tiles import Tile

if TYPE_CHECKING:
    from triton.compiler import CompiledKernel

__all__ = ["Figures", "inspect_case", "problems"]

_PTX_FMA = re.compile(r"\bfma\.r[nzmp](?:\.ftz)?(?:\.sat)?\.(?:f16|f16x2|bf16|bf16x2|f32|f32x2|f64)\b")
# `div.full`, what `/` becomes, is wrong in the last two bits; `div.rn` (tl.div_rn) is right.
_PTX_APPROXIMATE = re.compile(r"\.(?:approx|ftz)\b|\bdiv\.full\b")
_AMD_FMA = re.compile(r"^\s+v_(?:pk_)?(?:fma|fmac|mad|mac)(?:ak|mk)?_f(?:16|32|64)\w*", re.MULTILINE)
# A correctly rounded root is v_sqrt refined by two of them, or v_rsq by five where the input is known to be no
# denormal; a division has five. Looser ones are calls in LLVM's own code, and are counted there.
_AMD_ROOT = re.compile(r"^\s+v_sqrt_f32\w*", re.MULTILINE)
_AMD_NORMAL_ROOT = re.compile(r"^\s+v_rsq_f32\w*", re.MULTILINE)
_AMD_DIVISION = re.compile(r"^\s+v_div_fixup_f32\w*", re.MULTILINE)
_LLVM_APPROXIMATE = re.compile(
    r"call\b[^@\n]*@(?:llvm\.(?:exp|log|sin|cos|pow|amdgcn\.(?:rcp|rsq|sqrt|exp|log|sin|cos|fdiv\.fast))|__ocml_)"
)
_AMD_FLUSHES = re.compile(r"\.amdhsa_float_denorm_mode_32\s+[0-2]\b")


@dataclass(frozen=True)
class Figures:
    """What the compiler made of one case for one architecture.

    registers: a thread; AMD: vector registers. accumulators: AMD's accumulation registers, beside them.
    stack: bytes a thread (NVIDIA's frame, AMD's scratch): spilled registers, or arrays that found no register.
    spills: instructions that touch it, or registers that AMD's compiler says it spilled.
    shared: bytes a block. resident: blocks that a multiprocessor holds at a time. occupancy: warps of them,
    against the most that it can hold.
    fused: fused multiply-adds, in PTX or in AMD's assembly, without those inside an exact root or division.
    approximate: operations that are not correctly rounded or flush denormals, in PTX or in LLVM's code for AMD.
    """

    registers: int
    accumulators: int
    stack: int
    spills: int
    shared: int
    resident: int
    occupancy: float
    mix: Mix
    fused: int
    approximate: int
    seconds: float


def inspect_case(case: Case, arch: str) -> Figures:
    """Compile a case and read the result.

    Raises: AuditError: it does not compile. UnreadableError: the result is not as it was expected.
    """
    began = time.perf_counter()
    kernel = compile_case(case, arch)
    seconds = time.perf_counter() - began
    tile = case.tile(arch)
    assert tile is not None
    if arch.startswith("gfx"):
        return _amd(kernel, tile, arch, seconds)
    return _nvidia(kernel, tile, arch, seconds)


def problems(case: Case, arch: str, figures: Figures) -> list[str]:
    """What the case does not hold to, in words; empty: nothing."""
    counts, limit = figures.mix, LIMITS[arch].shared_block
    narrow = sum(n for kind in (counts.loads, counts.copies) for width, n in kind.items() if width < 32)
    found = []
    if figures.spills or figures.stack or counts.spills:
        found.append(f"spills: {figures.stack} bytes of stack, {figures.spills or counts.spills} instructions")
    if figures.shared > limit:
        found.append(f"{figures.shared} bytes of shared memory; the chip has {limit}")
    elif not figures.resident:
        found.append(f"{figures.registers} registers a thread: no block fits the chip")
    if case.has_dot and not counts.matrix:
        found.append("a product, and no matrix instruction")
    if narrow:
        found.append(f"{narrow} loads of 2 bytes or 1")
    if case.reproducible and figures.fused:
        found.append(f"{figures.fused} fused multiply-adds where every bit counts")
    if case.reproducible and figures.approximate:
        found.append(f"{figures.approximate} approximate or flushing operations where every bit counts")
    return found


def _nvidia(kernel: CompiledKernel, tile: Tile, arch: str, seconds: float) -> Figures:
    kernels = read_cubin(kernel.asm["cubin"])
    name = kernel.metadata.name
    if name not in kernels:
        raise UnreadableError(f"cubin: no kernel {name!r}; it has {', '.join(kernels)}")
    counts = mix(read_sass(disassemble(kernel.asm["cubin"])))
    # ptxas gives a kernel with extra warps (sm100) more threads than num_warps; metadata has them where so.
    warps = getattr(kernel.metadata, "total_num_warps", None) or tile.warps
    resident = blocks_resident(arch, kernels[name].registers, kernel.metadata.shared, warps)
    return Figures(
        registers=kernels[name].registers,
        accumulators=0,
        stack=kernels[name].frame,
        spills=counts.spills,
        shared=kernel.metadata.shared,
        resident=resident,
        occupancy=resident * warps / LIMITS[arch].warps,
        mix=counts,
        fused=len(_PTX_FMA.findall(kernel.asm["ptx"])),
        approximate=len(_PTX_APPROXIMATE.findall(kernel.asm["ptx"])),
        seconds=seconds,
    )


def _amd(kernel: CompiledKernel, tile: Tile, arch: str, seconds: float) -> Figures:
    text = kernel.asm["amdgcn"]
    registers, accumulators = _stated(text, "vgpr_count"), _stated(text, "agpr_count")
    # gfx90a and later draw both from one file; vgpr_count is then already the sum.
    resident = blocks_resident(arch, registers, kernel.metadata.shared, tile.warps)
    roots = 2 * len(_AMD_ROOT.findall(text)) + 5 * len(_AMD_NORMAL_ROOT.findall(text))
    fused = len(_AMD_FMA.findall(text)) - roots - 5 * len(_AMD_DIVISION.findall(text))
    return Figures(
        registers=registers,
        accumulators=accumulators,
        stack=_stated(text, "private_segment_fixed_size"),
        spills=_stated(text, "vgpr_spill_count") + _stated(text, "sgpr_spill_count"),
        shared=kernel.metadata.shared,
        resident=resident,
        occupancy=resident * tile.warps / LIMITS[arch].warps,
        mix=mix(read_amdgcn(text)),
        fused=max(0, fused),
        approximate=len(_LLVM_APPROXIMATE.findall(kernel.asm["llir"])) + len(_AMD_FLUSHES.findall(text)),
        seconds=seconds,
    )


def _stated(text: str, key: str) -> int:
    """A number of the metadata at the assembly's end."""
    found = re.search(rf"^\s+(?:- )?\.{key}:\s*(\d+)", text, re.MULTILINE)
    if found is None:
        raise UnreadableError(f"amdgcn: no .{key} in {len(text)} characters of assembly")
    return int(found[1])
