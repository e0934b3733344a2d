"""Digests follow the bytes, are remembered only when that is safe, and hostile weights are refused unread."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mezzotint import fingerprint
from mezzotint.errors import UserError
from mezzotint.fingerprint import file_digest, folder_digest, refuse_pickle, safetensors_header
from mezzotint.store import MemoryStore, Store


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files were all written long ago."""
    now = time.time
    monkeypatch.setattr(fingerprint.time, "time", lambda: now() + 3600)


class Counting(MemoryStore):
    recalled = 0

    def recall_file(self, path: str, stamp: str) -> str | None:
        found = super().recall_file(path, stamp)
        self.recalled += found is not None
        return found


# --- files ---


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"bytes")
    assert file_digest(tmp_path / "f") == sha(b"bytes")


@pytest.mark.usefixtures("later")
def test_a_digest_is_remembered_and_a_change_of_size_time_or_inode_is_seen(tmp_path: Path) -> None:
    memory, path = Counting(), tmp_path / "f"
    path.write_bytes(b"one")
    assert [file_digest(path, memory) for _ in range(3)] == [sha(b"one")] * 3
    assert memory.recalled == 2
    path.write_bytes(b"longer")
    assert file_digest(path, memory) == sha(b"longer")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    (tmp_path / "g").write_bytes(b"LONGER")
    os.utime(tmp_path / "g", ns=times)
    os.replace(tmp_path / "g", path)
    assert file_digest(path, memory) == sha(b"LONGER")
    time.sleep(0.01)
    path.write_bytes(b"Longer")
    os.utime(path, ns=times)
    assert file_digest(path, memory) == sha(b"Longer")
    assert memory.recalled == 2


def test_a_file_changed_a_moment_ago_is_not_remembered(tmp_path: Path) -> None:
    memory = Counting()
    (tmp_path / "f").write_bytes(b"one")
    file_digest(tmp_path / "f", memory)
    assert file_digest(tmp_path / "f", memory) == sha(b"one")
    assert memory.recalled == 0


@pytest.mark.usefixtures("later")
def test_digests_are_remembered_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"one")
    with Store(tmp_path / "s", limit_bytes=10**9) as store:
        digest = file_digest(tmp_path / "f", store)
    monkeypatch.setattr(fingerprint, "_digest_of_open", None)
    with Store(tmp_path / "s", limit_bytes=10**9) as store:
        assert file_digest(tmp_path / "f", store) == digest


@pytest.mark.usefixtures("later")
def test_a_link_and_its_file_are_remembered_as_one(tmp_path: Path) -> None:
    memory = Counting()
    (tmp_path / "f").write_bytes(b"one")
    (tmp_path / "link").symlink_to("f")
    assert file_digest(tmp_path / "f", memory) == file_digest(tmp_path / "link", memory)
    assert memory.recalled == 1


def test_what_is_no_readable_file_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("absent", "pipe", "loop", ""):
        with pytest.raises(UserError, match=r"cannot read|not a regular file"):
            file_digest(tmp_path / name)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    real = hashlib.file_digest

    def slow(file: Any, name: str) -> Any:
        found = real(file, name)
        path.write_bytes(b"other")
        return found

    monkeypatch.setattr(fingerprint.hashlib, "file_digest", slow)
    with pytest.raises(UserError, match="changed while it was read"):
        file_digest(path)


# --- folders ---


def test_a_folders_digest_follows_names_and_bytes_and_not_times(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"1")
    (folder / "sub" / "b").write_bytes(b"2")
    digests = [folder_digest(folder)]
    os.utime(folder / "a", (0, 0))
    (folder / "empty").mkdir()
    assert folder_digest(folder) == digests[0]
    (folder / "a").write_bytes(b"3")
    digests.append(folder_digest(folder))
    (folder / "a").rename(folder / "c")
    digests.append(folder_digest(folder))
    (folder / "c").rename(folder / "sub" / "c")
    digests.append(folder_digest(folder))
    assert len(set(digests)) == 4
    folder.rename(tmp_path / "moved")
    assert folder_digest(tmp_path / "moved") == digests[-1]


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "snapshot"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "models" / "blob").write_bytes(b"b")
    (folder / "weights").symlink_to("../blob")
    with pytest.raises(UserError, match="leads out of"):
        folder_digest(folder)
    assert folder_digest(folder, within=tmp_path / "models")
    (folder / "other").symlink_to("../../secret")
    with pytest.raises(UserError, match=r"other leads out of .*secret"):
        folder_digest(folder, within=tmp_path / "models")


def test_links_to_folders_pipes_and_too_many_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "link").symlink_to("e")
    with pytest.raises(UserError, match="leads to a folder"):
        folder_digest(tmp_path / "d")
    (tmp_path / "d" / "link").unlink()
    for number in range(5):
        (tmp_path / "d" / "e" / str(number)).write_bytes(b"")
    with pytest.raises(UserError, match="more than 4 files"):
        folder_digest(tmp_path / "d", max_files=4)
    assert folder_digest(tmp_path / "d", max_files=5)
    os.mkfifo(tmp_path / "d" / "pipe")
    with pytest.raises(UserError, match="not a regular file"):
        folder_digest(tmp_path / "d")
    with pytest.raises(UserError, match="is not a folder"):
        folder_digest(tmp_path / "absent")


# --- safetensors ---


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def weights(header: Any, data: int = 8, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def test_the_header_of_real_weights_is_read(tmp_path: Path) -> None:
    tensors = {
        "a": torch.ones(2, 3, dtype=torch.bfloat16),
        "b": torch.ones((), dtype=torch.int64),
        "c": torch.ones(0, 4),
        "d": torch.ones(3, dtype=torch.float8_e4m3fn),
    }
    save_file(tensors, tmp_path / "w.safetensors", {"from": "here"})
    header = safetensors_header(tmp_path / "w.safetensors")
    assert header.pop("__metadata__") == {"from": "here"}
    assert {name: e["shape"] for name, e in header.items()} == {"a": [2, 3], "b": [], "c": [0, 4], "d": [3]}
    save_file({}, tmp_path / "empty.safetensors")
    assert safetensors_header(tmp_path / "empty.safetensors").keys() <= {"__metadata__"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "shorter than 8 bytes"),
        (b"1234567", "shorter than 8 bytes"),
        (weights({}, length=2**63), "header of 9223372036854775808 bytes does not fit"),
        (weights({}, length=1000), "header of 1000 bytes does not fit"),
        (weights(b"[]"), "brace"),
        (weights(b"{"), "not JSON"),
        (weights(b'{"a": ' * 100_000), "not JSON"),
        (weights(b'{"\xff": 1}'), "not JSON"),
        (weights(b'{"a": ' + b"9" * 10_000 + b"}"), "not JSON"),
        (weights(b'{"a": 1, "a": 2}'), "occurs twice"),
        (weights({"__metadata__": {"a": 1}}), "__metadata__"),
        (weights({"a": 1}), "'a': its entry"),
        (weights({"a": entry(more=1)}), "'a': its entry"),
        (weights({"a": entry("F33")}), "unknown dtype 'F33'"),
        (weights({"a": entry(["F32"])}), "unknown dtype"),
        (weights({"a": entry(shape=[-2])}), "its shape"),
        (weights({"a": entry(shape=[2.0])}), "its shape"),
        (weights({"a": entry(shape=[True, 2])}), "its shape"),
        (weights({"a": entry(shape=[2**64])}), "its shape"),
        (weights({"a": entry(shape=[1] * 65)}), "its shape"),
        (weights({"a": entry(offsets=[8, 0])}), "data_offsets"),
        (weights({"a": entry(offsets=[0, 8, 16])}), "data_offsets"),
        (weights({"a": entry(offsets=[-8, 0])}), "data_offsets"),
        (weights({"a": entry(shape=[3])}), "takes 12 bytes, its data_offsets span 8"),
        (weights({"a": entry(shape=[2**62, 2**62])}), "takes .* bytes"),
        (weights({"a": entry("F4", [3], [0, 1])}), r"takes 1\.5 bytes"),
        (weights({"a": entry()}, data=7), "cut off"),
        (weights({"a": entry()}, data=9), "the file has 9"),
        (weights({"a": entry(), "b": entry(offsets=[4, 12])}, data=12), "'b' begins at 4"),
        (weights({"a": entry(), "b": entry()}), "'b' begins at 0"),
        (weights({"a": entry(offsets=[8, 16])}, data=16), "'a' begins at 8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_that_break_the_format_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=rf"w\.safetensors is not a valid safetensors file: .*{message}"):
        safetensors_header(tmp_path / "w.safetensors")


def test_a_huge_sparse_file_costs_no_memory(tmp_path: Path) -> None:
    with open(tmp_path / "w", "wb") as file:
        file.write(struct.pack("<Q", 10**11))
        file.truncate(10**12)
    with pytest.raises(UserError, match="does not fit"):
        safetensors_header(tmp_path / "w")


# --- pickles ---


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


def saved(legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.ones(2)}, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("w.ckpt", saved(False)),
        ("w.pt", saved(True)),
        ("w.safetensors", saved(False)),
        ("w.safetensors", saved(True)),
        ("w", pickle.dumps({"a": 1})),
        ("w.bin", b"anything"),
        ("w.PTH", b"anything"),
        ("w.pkl", pickle.dumps(1, protocol=0)),
        ("w.zip", zipped("model/data.pkl")),
        ("w.zip", saved(False)[:-10]),
    ],
)
def test_weights_that_could_run_code_are_refused_with_the_way_out(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=r"could run code.*safetensors\.torch\.save_file\(torch\.load\("):
        refuse_pickle(tmp_path / name)


def test_weights_that_cannot_run_code_pass(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    (tmp_path / "a.zip").write_bytes(zipped("readme.txt"))
    (tmp_path / "empty").write_bytes(b"")
    for name in ("w.safetensors", "a.zip", "empty"):
        refuse_pickle(tmp_path / name)
    with pytest.raises(UserError, match="cannot read"):
        refuse_pickle(tmp_path / "absent")
