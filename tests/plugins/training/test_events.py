"""Event files: their checksums, their framing, and what TensorBoard itself reads out of them."""

from __future__ import annotations

import struct

import pytest

from mezzotint import Report, UserError
from mezzotint.testing import check_node
from mezzotint_training.events import crc32c, events, masked, write_events

CURVE = [{"step": 50, "loss": 0.5, "norm": 1.25}, {"step": 100, "loss": 0.25, "norm": 1.0}]
REPORT = Report({"steps": 100, "curve": CURVE, "validation": [{"step": 60, "loss": 0.375}]})


def test_the_checksum_is_castagnolis():
    # RFC 3720, appendix B.4, and the usual check value.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes([0xFF] * 32)) == 0x62A8AB43


def test_every_record_is_framed_by_its_length_and_checksums():
    (data,), records = write_events(events(REPORT)), []
    while data:
        (length, first) = struct.unpack("<QI", data[:12])
        body, (last,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert first == masked(data[:8]) and last == masked(body)
        records.append(body)
        data = data[16 + length :]
    assert len(records) == 1 + 3 and b"brain.Event:2" in records[0]
    assert b"validation/loss" in records[2] and struct.pack("<f", 0.375) in records[2]


def test_tensorboard_reads_every_figure_at_its_step(tmp_path):
    theirs = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "run.tfevents").write_bytes(write_events(events(REPORT))[0])
    read = theirs.EventAccumulator(str(tmp_path)).Reload()
    found = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert found == {
        "loss": [(50, 0.5), (100, 0.25)], "norm": [(50, 1.25), (100, 1.0)], "validation/loss": [(60, 0.375)],
    }  # fmt: skip


def test_the_node_keeps_what_every_node_promises():
    assert [row["step"] for row in check_node(events, report=REPORT)["event_log"].rows] == [50, 60, 100]


def test_another_report_is_refused():
    with pytest.raises(UserError, match=r"wanted the report of training.train with its curve, got one of score"):
        events(Report({"score": 1.0}))
