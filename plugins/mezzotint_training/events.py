"""A training run's figures as an event file that TensorBoard reads. Neither TensorBoard nor protobuf is needed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mezzotint import Port, Report, UserError, node

__all__ = ["EventLog", "events", "write_events"]


@dataclass(frozen=True, eq=False)
class EventLog(Port):
    """Figures over steps. rows: {"step": n, tag: number, ...}, in the order of their steps."""

    rows: Sequence[Mapping[str, Any]]


@node("training.events")
def events(report: Report) -> EventLog:
    """The figures of `training.train` for TensorBoard: as a graph's output, a file that ends in .tfevents.

    `tensorboard --logdir` of the folder shows it. Training's figures have the names that they have in the report,
    those of validation with "validation/" before them. Files of equal runs are equal: a step counts as a second.

    report: of `training.train`.

    Raises: UserError: a report of something else.
    """
    rows = report.data.get("curve"), report.data.get("validation")
    if not all(
        isinstance(part, Sequence) and all(isinstance(r, Mapping) and "step" in r for r in part) for part in rows
    ):
        have = ", ".join(report.data) or "nothing"
        raise UserError(f"training.events: wanted the report of training.train with its curve, got one of {have}")
    training, validation = rows
    named = [{("step" if n == "step" else f"validation/{n}"): v for n, v in row.items()} for row in validation]
    return EventLog(sorted([*training, *named], key=lambda row: row["step"]))


def write_events(log: EventLog, info: Any = None) -> list[bytes]:
    """The bytes of one file: a record that names the format, then one per row."""
    first = _double(1, 0.0) + _bytes(3, b"brain.Event:2")
    return [b"".join(record(event) for event in (first, *_events(log.rows)))]


def record(data: bytes) -> bytes:
    """TFRecord: length, its checksum, the data, their checksum; little endian."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def masked(data: bytes) -> int:
    """The checksum as TFRecord stores it."""
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC (RFC 3720, appendix B.4)."""
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _table() -> tuple[int, ...]:
    made = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        made.append(value)
    return tuple(made)


def _events(rows: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    """Messages of type Event: 1 wall_time, 2 step, 5 summary, whose 1 are values of 1 tag and 2 simple_value."""
    for row in rows:
        values = b"".join(
            _bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in row.items() if name != "step"
        )
        step = int(row["step"])
        yield _double(1, float(step)) + _varint(2 << 3) + _varint(step) + _bytes(5, values)


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
