"""Registers and stack of each kernel in a cubin, read from its ELF file without any tool.

A cubin is a 64-bit little-endian ELF file. Its `.nv.info` section is a list of records, format byte, attribute
byte, 16-bit size, and the ones that count here hold a symbol's index and a number. Register counts are no longer
in the header of `.text` (CUDA 13 writes 0 there).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["Resources", "UnreadableError", "read_cubin"]

REGISTERS = 0x2F
FRAME = 0x11
SIZED = 0x04  # the record format that has a body
SYMBOL_TABLE = 2
NO_BITS = 8  # a section with a size and no bytes in the file
MAX_SECTIONS = 100_000


class UnreadableError(ValueError):
    """Bytes that are not what they should be; the message says where they stop making sense."""


@dataclass(frozen=True)
class Resources:
    """registers: 32-bit registers a thread. frame: bytes of stack a thread, spilled registers among them."""

    registers: int
    frame: int


@dataclass(frozen=True)
class _Section:
    name_at: int
    kind: int
    offset: int
    size: int
    link: int


def read_cubin(data: bytes) -> dict[str, Resources]:
    """The resources of each kernel, by name.

    Raises: UnreadableError: the bytes are no cubin, are cut short, or say nothing of registers.
    """
    sections = _sections(data)
    names = _names(data, sections)
    symbols = _symbols(data, sections)
    found: dict[str, dict[int, int]] = {}
    for section, name in zip(sections, names, strict=True):
        if name != ".nv.info":
            continue
        for attribute, symbol, value in _records(_bytes_of(data, section, name)):
            if symbol >= len(symbols):
                raise UnreadableError(f"cubin: .nv.info names symbol {symbol}, of {len(symbols)}")
            found.setdefault(symbols[symbol], {})[attribute] = value
    kernels = {
        name: Resources(values[REGISTERS], values.get(FRAME, 0))
        for name, values in found.items()
        if REGISTERS in values
    }
    if not kernels:
        raise UnreadableError("cubin: no kernel's register count in .nv.info")
    return kernels


def _unpack(layout: str, data: bytes, at: int, what: str) -> tuple[int, ...]:
    if at < 0 or at + struct.calcsize(layout) > len(data):
        raise UnreadableError(f"cubin: {what} at byte {at} is beyond the file's {len(data)}")
    return struct.unpack_from(layout, data, at)


def _sections(data: bytes) -> list[_Section]:
    if data[:4] != b"\x7fELF":
        raise UnreadableError(
            f"cubin: wanted an ELF file, which begins with 7f 45 4c 46; got {data[:4].hex(' ')!r}"
        )
    if data[4:6] != b"\x02\x01":
        raise UnreadableError("cubin: wanted a 64-bit little-endian ELF file")
    (table,) = _unpack("<Q", data, 0x28, "the section table's place")
    entry, count, _ = _unpack("<HHH", data, 0x3A, "the section table's size")
    if entry < 64 or not 0 < count <= MAX_SECTIONS:
        raise UnreadableError(f"cubin: {count} sections of {entry} bytes; wanted some, of 64 bytes or more")
    sections = []
    for i in range(count):
        fields = _unpack("<IIQQQQIIQQ", data, table + i * entry, f"section {i}'s header")
        sections.append(_Section(fields[0], fields[1], fields[4], fields[5], fields[6]))
    return sections


def _bytes_of(data: bytes, section: _Section, what: str) -> bytes:
    if section.kind == NO_BITS:
        return b""
    if section.offset + section.size > len(data):
        end = section.offset + section.size
        raise UnreadableError(f"cubin: {what} ends at byte {end}, beyond the file's {len(data)}")
    return data[section.offset : section.offset + section.size]


def _text_at(table: bytes, at: int, what: str) -> str:
    end = table.find(b"\0", at)
    if at >= len(table) or end < 0:
        raise UnreadableError(f"cubin: {what} has no name in its table of names")
    return table[at:end].decode("utf-8", "replace")


def _names(data: bytes, sections: list[_Section]) -> list[str]:
    (index,) = _unpack("<H", data, 0x3E, "the index of the section names")
    if index >= len(sections):
        raise UnreadableError(f"cubin: section names are said to be in section {index}, of {len(sections)}")
    table = _bytes_of(data, sections[index], "the table of section names")
    return [_text_at(table, section.name_at, f"section {i}") for i, section in enumerate(sections)]


def _symbols(data: bytes, sections: list[_Section]) -> list[str]:
    for section in sections:
        if section.kind == SYMBOL_TABLE:
            if section.link >= len(sections):
                raise UnreadableError(f"cubin: symbol names are said to be in section {section.link}")
            table = _bytes_of(data, sections[section.link], "the table of symbol names")
            body = _bytes_of(data, section, "the symbol table")
            starts = (struct.unpack_from("<I", body, at)[0] for at in range(0, len(body) - 23, 24))
            return [_text_at(table, start, f"symbol {i}") for i, start in enumerate(starts)]
    raise UnreadableError("cubin: no symbol table")


def _records(body: bytes) -> list[tuple[int, int, int]]:
    """(attribute, symbol, value) of the records that have both."""
    found, at = [], 0
    while at < len(body):
        form, attribute, size = _unpack("<BBH", body, at, "a record of .nv.info")
        at += 4
        if form != SIZED:
            continue
        if at + size > len(body):
            raise UnreadableError(f"cubin: a record of .nv.info has {size} bytes, {len(body) - at} are left")
        if attribute in (REGISTERS, FRAME):
            if size != 8:
                raise UnreadableError(f"cubin: attribute {attribute:#x} of .nv.info has {size} bytes; wanted 8")
            found.append((attribute, *struct.unpack_from("<II", body, at)))
        at += size
    return found
