"""What machine code says: matrix instructions, widths of loads and stores, spills. NVIDIA's SASS, AMD's text.

Both are read from text: nvdisasm's (it is in Triton's wheel), and the assembly that Triton keeps for AMD.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mezzotint_kernels.audit.elf import UnreadableError
from mezzotint_kernels.audit.loops import Code, Instruction, find_loops, innermost

__all__ = ["Mix", "mix", "read_amdgcn", "read_sass"]

_SASS = re.compile(
    r"^\s*(?:/\*[0-9a-f]+\*/\s+)?\{?\s*(@!?U?P[T\d]+\s+)?([A-Z][A-Z0-9_]*(?:\.[\w.]+)?)(?:\s+([^;]*))?;"
)
_SASS_LABEL = re.compile(r"^([.$\w]+):\s*$")
_SASS_TARGET = re.compile(r"`\(([.$\w]+)\)")
_SASS_JUMPS = ("BRA", "JMP", "BRX", "JMX")
_SASS_ENDS = ("EXIT", "RET", "KILL")

_AMD = re.compile(r"^\s+((?:[vs]|ds|buffer|global|flat|scratch)_\w+)(?:\s+(.*))?$")
_AMD_LABEL = re.compile(r"^(\.LBB\w+):")

_SASS_MATRIX = re.compile(r"^(?:[HIQ]G?MMA|DMMA|UTC\w*MMA)(?:\.|$)")
_SASS_WIDTH = re.compile(r"\.(128|64|[US]16|[US]8)(?:\.|$)")
_AMD_WIDTHS = {"dwordx4": 128, "dwordx3": 96, "dwordx2": 64, "dword": 32}
_AMD_SLOW = re.compile(r"^v_(?:exp|log|rcp|rsq|sqrt|sin|cos)_")


@dataclass(frozen=True)
class Mix:
    """Counts of instructions of one function.

    matrix: by opcode's first word, {"HGMMA": 16}. loads, stores, copies: {width in bits: count} of global
    memory; copies go to shared memory past the registers. bulk: tensor copies (TMA).
    spills: instructions that touch the thread's stack.
    loop: instructions of the hot loop: the longest of those with a matrix instruction and no such loop inside;
        0: there is none.
    loop_flops: what its matrix instructions do, for one warp; 0 where the text does not say (tcgen05).
    loop_vector: AMD's vector instructions in it. loop_slow: those at a quarter of the rate (MUFU; exp, rcp).
    tf32: matrix instructions take float32 inputs, rounded. loop_free: no loop of any kind.
    """

    instructions: int
    matrix: dict[str, int]
    loads: dict[int, int]
    stores: dict[int, int]
    copies: dict[int, int]
    bulk: int
    spills: int
    loop: int = 0
    loop_flops: int = 0
    loop_vector: int = 0
    loop_slow: int = 0
    tf32: bool = False
    loop_free: bool = True


def read_sass(text: str) -> Code:
    """The instructions that nvdisasm -c printed.

    Raises: UnreadableError: there are none.
    """
    code = Code()
    for line in text.splitlines():
        if found := _SASS_LABEL.match(line):
            code.labels[found[1]] = len(code.instructions)
        elif found := _SASS.match(line):
            code.instructions.append(_sass(found[1], found[2], found[3] or ""))
    if not code.instructions:
        raise UnreadableError(f"no SASS instruction in {len(text)} characters of disassembly")
    return code


def _sass(predicate: str | None, opcode: str, operands: str) -> Instruction:
    word = opcode.split(".")[0]
    always = predicate is None or predicate.strip() == "@PT"
    if word in _SASS_ENDS:
        return Instruction(opcode, operands, falls=not always)
    if word in _SASS_JUMPS:
        target = _SASS_TARGET.search(operands)
        # `BRA.U UP1, ...` has its condition among the operands; a target alone has none.
        alone = operands.strip().startswith("`")
        return Instruction(opcode, operands, target[1] if target else None, falls=not (always and alone))
    return Instruction(opcode, operands)


def read_amdgcn(text: str) -> Code:
    """The instructions of Triton's assembly for AMD.

    Raises: UnreadableError: there are none.
    """
    code = Code()
    for line in text.splitlines():
        line = line.split(";")[0].rstrip()
        if found := _AMD_LABEL.match(line):
            code.labels[found[1]] = len(code.instructions)
        elif found := _AMD.match(line):
            opcode, operands = found[1], found[2] or ""
            target = operands.strip() if opcode.startswith(("s_branch", "s_cbranch")) else None
            code.instructions.append(
                Instruction(opcode, operands, target, falls=opcode not in ("s_branch", "s_endpgm"))
            )
    if not code.instructions:
        raise UnreadableError(f"no AMD instruction in {len(text)} characters of assembly")
    return code


def mix(code: Code) -> Mix:
    """The counts of one function, of either maker."""
    amd = any(one.opcode.startswith("s_endpgm") for one in code.instructions)
    is_matrix = _is_amd_matrix if amd else _is_sass_matrix
    loops = find_loops(code)
    hot = max(innermost(code, loops, lambda one: is_matrix(one.opcode)), key=len, default=[])
    body = [code.instructions[i] for i in hot]
    matrix = [one.opcode for one in code.instructions if is_matrix(one.opcode)]
    widths = _amd_widths(code.instructions) if amd else _sass_widths(code.instructions)
    flops = _amd_flops if amd else _sass_flops
    return Mix(
        instructions=len(code.instructions),
        matrix=dict(Counter("MFMA" if amd else opcode.split(".")[0] for opcode in matrix)),
        loads=widths["load"],
        stores=widths["store"],
        copies=widths["copy"],
        bulk=sum(one.opcode.startswith("UTMA") and "DG" in one.opcode for one in code.instructions),
        spills=sum(one.opcode.startswith(("STL", "LDL", "scratch_")) for one in code.instructions),
        loop=len(body),
        loop_flops=sum(flops(one.opcode) for one in body if is_matrix(one.opcode)),
        loop_vector=sum(one.opcode.startswith("v_") and not is_matrix(one.opcode) for one in body),
        loop_slow=sum(one.opcode.startswith("MUFU") or bool(_AMD_SLOW.match(one.opcode)) for one in body),
        tf32=any("TF32" in opcode or "xf32" in opcode for opcode in matrix),
        loop_free=not loops,
    )


def _is_sass_matrix(opcode: str) -> bool:
    return _SASS_MATRIX.match(opcode) is not None


def _is_amd_matrix(opcode: str) -> bool:
    return opcode.startswith(("v_mfma_", "v_smfmac_"))


def _sass_widths(instructions: Iterable[Instruction]) -> dict[str, dict[int, int]]:
    kinds = {"LDG": "load", "STG": "store", "LDGSTS": "copy"}
    counts: dict[str, Counter[int]] = {kind: Counter() for kind in kinds.values()}
    for one in instructions:
        kind = kinds.get(one.opcode.split(".")[0])
        if kind is not None:
            width = _SASS_WIDTH.search(one.opcode)
            counts[kind][int(width[1].lstrip("US")) if width else 32] += 1
    return {kind: dict(sorted(count.items(), reverse=True)) for kind, count in counts.items()}


def _amd_widths(instructions: Iterable[Instruction]) -> dict[str, dict[int, int]]:
    counts: dict[str, Counter[int]] = {"load": Counter(), "store": Counter(), "copy": Counter()}
    for one in instructions:
        found = re.match(r"(?:buffer|global|flat)_(load|store)_(lds_)?(\w+)", one.opcode)
        if found is None:
            continue
        size = found[3]
        width = _AMD_WIDTHS.get(size) or (8 if "byte" in size else 16)
        direct = found[2] or re.search(r"\blds\b", one.operands)
        counts["copy" if direct else found[1]][width] += 1
    return {kind: dict(sorted(count.items(), reverse=True)) for kind, count in counts.items()}


def _sass_flops(opcode: str) -> int:
    """Multiplies and adds, for one warp: HMMA.16816 is 16x8x16; HGMMA.64x64x16 is of four warps together."""
    if found := re.match(r"^\w+\.(\d+)x(\d+)x(\d+)", opcode):
        return 2 * int(found[1]) * int(found[2]) * int(found[3]) // 4
    if found := re.match(r"^[HI]MMA\.168(\d+)", opcode):
        return 2 * 16 * 8 * int(found[1])
    return 0


def _amd_flops(opcode: str) -> int:
    found = re.match(r"^v_mfma_\w+?_(\d+)x(\d+)x(\d+)", opcode)
    return 2 * int(found[1]) * int(found[2]) * int(found[3]) if found else 0
