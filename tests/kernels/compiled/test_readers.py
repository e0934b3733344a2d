"""The audit's readers: cubins, SASS and AMD's assembly, on small and on hostile input. Nothing is compiled."""

from __future__ import annotations

import random
import struct

import pytest

from mezzotint_kernels.audit.chips import LIMITS, blocks_resident
from mezzotint_kernels.audit.elf import Resources, UnreadableError, read_cubin
from mezzotint_kernels.audit.machine import mix, read_amdgcn, read_sass


def cubin(registers: int = 42, frame: int = 0, name: str = "_fwd_kernel") -> bytes:
    """A file with the parts of a cubin that count: names, one symbol, `.nv.info`."""
    names = b"\0.shstrtab\0.strtab\0.symtab\0.nv.info\0"
    strings = b"\0" + name.encode() + b"\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 5, 0, 0)
    info = struct.pack("<BBH", 0x03, 0x5F, 0)  # a record without a body
    info += struct.pack("<BBHII", 0x04, 0x2F, 8, 1, registers) + struct.pack("<BBHII", 0x04, 0x11, 8, 1, frame)
    at, parts, headers = 64, b"", bytes(64)
    for title, kind, link, body in (
        (b".shstrtab", 3, 0, names),
        (b".strtab", 3, 0, strings),
        (b".symtab", 2, 2, symbols),
        (b".nv.info", 1, 3, info),
    ):
        headers += struct.pack(
            "<IIQQQQIIQQ", names.index(title + b"\0"), kind, 0, 0, at + len(parts), len(body), link, 0, 1, 0
        )
        parts += body
    table = at + len(parts)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQI", 2, 190, 1, 0, 0, table, 0)
    return head + struct.pack("<HHHHHH", 64, 56, 0, 64, 5, 1) + parts + headers


def test_registers_and_stack_come_from_nv_info_by_the_kernels_own_symbol():
    assert read_cubin(cubin(registers=113, frame=24)) == {"_fwd_kernel": Resources(113, 24)}


def test_a_cubin_cut_anywhere_is_an_error_that_says_so():
    whole = cubin()
    for size in range(len(whole)):
        with pytest.raises(UnreadableError, match="cubin"):
            read_cubin(whole[:size])


def test_a_cubin_with_bytes_changed_is_read_or_refused_and_nothing_else():
    whole, rng, refused = cubin(), random.Random(0), 0
    for _ in range(4000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        try:
            read_cubin(bytes(damaged))
        except UnreadableError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with 7f 45 4c 46"),
        (b"MZ" + bytes(200), "got '4d 5a 00 00'"),
        (b"\x7fELF\x01\x01" + bytes(200), "64-bit little-endian"),
        (cubin().replace(b".nv.info", b".nv.none"), "no kernel's register count"),
        (
            cubin().replace(struct.pack("<BBHII", 4, 0x2F, 8, 1, 42), struct.pack("<BBHII", 4, 0x2F, 8, 9, 42)),
            "symbol 9",
        ),
        (cubin().replace(struct.pack("<BBH", 4, 0x2F, 8), struct.pack("<BBH", 4, 0x2F, 80)), "80 bytes"),
    ],
)
def test_bytes_that_are_no_cubin_are_refused_with_what_was_wrong(data: bytes, message: str):
    with pytest.raises(UnreadableError, match=message):
        read_cubin(data)


SASS = """
_fwd_kernel:
.text._fwd_kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   LDG.E.128 R32, desc[UR14][R32.64] ;
        /*0020*/              @!P0 LDG.E.U16 R24, desc[UR14][R2.64+0x40] ;
.L_x_1:
        /*0030*/                   LDGSTS.E.BYPASS.128 [R0+0x2000], desc[UR14][R34.64], P2 ;
        /*0040*/               @P1 BRA `(.L_x_3) ;
.L_x_2:
        /*0050*/                   HGMMA.64x64x16.F32 R24, gdesc[UR16], RZ, !UPT ;
        /*0060*/                   MUFU.EX2 R3, R4 ;
        /*0070*/              @!P2 BRA `(.L_x_1) ;
        /*0080*/                   STG.E.64 desc[UR14][R2.64], R8 ;
        /*0090*/                   EXIT ;
.L_x_3:
        /*00a0*/                   NANOSLEEP 0x20 ;
        /*00b0*/               @P3 BRA `(.L_x_3) ;
        /*00c0*/                   BRA `(.L_x_2) ;
.L_x_4:
        /*00d0*/                   BRA `(.L_x_4);
        /*00e0*/                   NOP;
"""


def test_widths_matrix_instructions_and_their_operations_are_read_from_sass():
    counts = mix(read_sass(SASS))
    assert counts.instructions == 15
    assert (counts.loads, counts.copies, counts.stores) == ({128: 1, 16: 1}, {128: 1}, {64: 1})
    assert counts.matrix == {"HGMMA": 1}
    assert counts.loop_flops == 2 * 64 * 64 * 16 // 4  # a warp's share of the four that do it together


def test_the_hot_loop_holds_what_returns_to_its_header_and_a_jump_back_from_a_cold_block_makes_no_loop():
    # .L_x_1 .. `BRA .L_x_1` is 5 instructions, and the cold block at .L_x_3, 3, goes back into it. The jump from
    # there to .L_x_2 is backward too, with a matrix instruction between, and is no loop: a path leads past it.
    counts = mix(read_sass(SASS))
    assert counts.loop == 8
    assert counts.loop_slow == 1
    assert not counts.loop_free


def test_spills_are_counted_in_sass():
    counts = mix(read_sass(" /*0*/ STL [R1+0x4], R2 ;\n /*10*/ @P0 LDL.LU R2, [R1+0x4] ;\n /*20*/ EXIT ;\n"))
    assert counts.spills == 2
    assert counts.loop_free


@pytest.mark.parametrize(
    ("opcode", "flops"),
    [
        ("HMMA.16816.F32", 2 * 16 * 8 * 16),
        ("HMMA.1688.F32.TF32", 2 * 16 * 8 * 8),
        ("HGMMA.64x256x16.F32.BF16", 2 * 64 * 256 * 16 // 4),
        ("UTCHMMA", 0),
    ],
)
def test_operations_of_a_matrix_instruction_follow_from_its_name(opcode: str, flops: int):
    counts = mix(
        read_sass(f".L_x_0:\n /*0*/ {opcode} R0, R4, R8, R0 ;\n /*10*/ @P0 BRA `(.L_x_0) ;\n /*20*/ EXIT ;")
    )
    assert (counts.loop, counts.loop_flops) == (2, flops)
    assert counts.tf32 == ("TF32" in opcode)


AMDGCN = """
_fwd_kernel:                            ; @_fwd_kernel
; %bb.0:
	s_load_dwordx2 s[2:3], s[0:1], 0x0
	buffer_load_dwordx4 v[4:7], v13, s[36:39], 0 offen
	global_load_ushort v2, v[2:3], off
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
	v_mfma_f32_32x32x8_f16 v[16:31], v[32:33], v[142:143], 0
	v_exp_f32_e32 v1, v2
	v_pk_mul_f32 v[0:1], v[0:1], v[2:3]
	s_cbranch_scc1 .LBB0_1
; %bb.2:
	buffer_store_dwordx2 v[4:5], v13, s[36:39], 0 offen
	s_endpgm
"""


def test_amds_assembly_is_read_for_the_same_figures():
    counts = mix(read_amdgcn(AMDGCN))
    assert (counts.loads, counts.stores, counts.matrix) == ({128: 1, 16: 1}, {64: 1}, {"MFMA": 1})
    assert (counts.loop, counts.loop_vector, counts.loop_slow) == (4, 2, 1)
    assert counts.loop_flops == 2 * 32 * 32 * 8


@pytest.mark.parametrize("text", ["", "nothing\nof the kind", "\x00\xff" * 1000, ".L_x_0:\n.L_x_1:\n"])
def test_text_without_instructions_is_refused(text: str):
    with pytest.raises(UnreadableError, match="no SASS instruction"):
        read_sass(text)
    with pytest.raises(UnreadableError, match="no AMD instruction"):
        read_amdgcn(text)


def test_a_branch_to_nowhere_and_code_without_an_end_are_read_all_the_same():
    counts = mix(read_sass(" /*0*/ BRA `(.L_x_9) ;\n /*10*/ HMMA.16816.F32 R0, R4, R8, R0 ;\n"))
    assert (counts.instructions, counts.loop) == (2, 0)


@pytest.mark.parametrize(
    ("arch", "registers", "shared", "warps", "blocks"),
    [
        ("sm80", 128, 24 * 1024, 8, 2),  # 65536 registers / (128 * 256 threads)
        ("sm80", 32, 0, 4, 16),  # 64 warps / 4
        ("sm90", 113, 100 * 1024, 4, 2),  # 228 KiB / (100 + 1)
        ("sm90", 113, 228 * 1024, 4, 0),  # a block may have 227 KiB
        ("gfx942", 185, 28 * 1024, 4, 2),  # 512 registers a lane / 192
        ("gfx942", 60, 65 * 1024, 4, 0),  # 64 KiB of LDS
    ],
)
def test_blocks_that_a_multiprocessor_holds(arch: str, registers: int, shared: int, warps: int, blocks: int):
    assert blocks_resident(arch, registers, shared, warps) == blocks
    assert blocks * warps <= LIMITS[arch].warps
