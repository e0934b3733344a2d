"""What files are: their digests, remembered; and what may be read of weights without running anything.

A digest is remembered for a file's path, size, times and inode. As in git, a file that was changed less than two
seconds ago is not remembered: another change could leave all of these as they are.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import stat
import struct
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Never, Protocol

from mezzotint.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FileMemory", "file_digest", "folder_digest", "refuse_pickle", "safetensors_header"]

_RACY_SECONDS = 2.0
_MAX_FILES = 10_000
_MAX_HEADER = 100_000_000
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".tar"})


class FileMemory(Protocol):
    """Where digests are remembered: a store."""

    def recall_file(self, path: str, stamp: str) -> str | None: ...
    def remember_file(self, path: str, stamp: str, digest: str) -> None: ...


# --- digests ---


def file_digest(path: str | os.PathLike[str], memory: FileMemory | None = None) -> str:
    """The sha256 (hex) of a file's bytes, read only if `memory` does not know it.

    Raises: UserError: the file cannot be read, is not a regular file, or changes while it is read.
    """
    name = os.path.realpath(path)
    try:
        known = memory.recall_file(name, _stamp(os.stat(name))) if memory is not None else None
        if known is not None:
            return known
        # Not blocking, or a pipe that nobody writes to would hold us here.
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            return _digest_of_open(file, name, memory)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _digest_of_open(file: io.BufferedReader, name: str, memory: FileMemory | None) -> str:
    before = os.fstat(file.fileno())
    if not stat.S_ISREG(before.st_mode):
        raise UserError(f"{name} is not a regular file")
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _stamp(os.fstat(file.fileno())) != _stamp(before):
        raise UserError(f"{name} changed while it was read; run again when it is complete")
    age = time.time() - max(before.st_mtime, before.st_ctime)
    if memory is not None and age > _RACY_SECONDS:
        memory.remember_file(name, _stamp(before), digest)
    return digest


def _stamp(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_dev}:{found.st_ino}"


def folder_digest(
    folder: str | os.PathLike[str],
    memory: FileMemory | None = None,
    *,
    within: str | os.PathLike[str] | None = None,
    max_files: int = _MAX_FILES,
) -> str:
    """The sha256 (hex) over the names and digests of all files in a folder, at any depth.

    within: links must lead into this folder (by default `folder` itself). Empty folders do not count.

    Raises: UserError: a link leads elsewhere, something is not a regular file, or there are more than `max_files`.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    bound = Path(os.path.realpath(within if within is not None else root))
    names = sorted(itertools.islice(_file_names(root, bound), max_files + 1))
    if len(names) > max_files:
        raise UserError(f"{root} holds more than {max_files} files")
    listed = [[name, file_digest(root / name, memory)] for name in names]
    return hashlib.sha256(json.dumps(listed).encode("ascii")).hexdigest()


def _file_names(root: Path, bound: Path) -> Iterator[str]:
    def fail(error: OSError) -> Never:
        raise UserError(f"cannot read {root}: {error}") from error

    for parent, folders, files in os.walk(root, onerror=fail):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                _check_link(path, bound)
        for name in files:
            yield Path(parent, name).relative_to(root).as_posix()


def _check_link(path: Path, bound: Path) -> None:
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(bound):
        raise UserError(f"the link {path} leads out of {bound}, to {target}")
    if target.is_dir():
        raise UserError(f"the link {path} leads to a folder; link files, or copy the folder")


# --- weights ---


def safetensors_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of a safetensors file: name to {"dtype", "shape", "data_offsets"}; and "__metadata__", if any.

    Every entry is checked: known dtype, a size that fits its shape, offsets inside the file that neither overlap
    nor leave gaps. After the format's description at https://github.com/huggingface/safetensors.

    Raises: UserError: the file cannot be read, is cut off, or breaks one of these rules.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            if len(head) < 8:
                raise _bad(path, "it is shorter than 8 bytes")
            (length,) = struct.unpack("<Q", head)
            if length > min(_MAX_HEADER, size - 8):
                raise _bad(path, f"its header of {length} bytes does not fit (file: {size} bytes)")
            text = file.read(length)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    header = _parsed(path, text)
    _check_entries(path, header, size - 8 - length)
    return header


def _bad(path: str | os.PathLike[str], why: str) -> UserError:
    return UserError(f"{os.fspath(path)} is not a valid safetensors file: {why}")


def _parsed(path: str | os.PathLike[str], text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name occurs twice")
        return found

    try:
        if text[:1] != b"{":
            raise ValueError("it does not begin with a brace")
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"its header is not JSON as it should be: {error}") from error
    assert isinstance(header, dict)  # it began with a brace
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad(path, "its __metadata__ is not a map from strings to strings")
    return header


def _check_entries(path: str | os.PathLike[str], header: dict[str, Any], data: int) -> None:
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        problem = _entry_problem(entry)
        if problem:
            raise _bad(path, f"tensor {name!r}: {problem}")
        spans.append((*entry["data_offsets"], name))
    reached = 0
    for begin, end, name in sorted(spans):
        if begin != reached:
            raise _bad(path, f"tensor {name!r} begins at {begin}, the one before it ends at {reached}")
        reached = end
    if reached != data:
        raise _bad(path, f"its tensors take {reached} bytes, the file has {data} for them (is it cut off?)")


def _entry_problem(entry: Any) -> str:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return "its entry is not made of dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        return f"unknown dtype {dtype!r}"
    if not _naturals(shape) or len(shape) > 64:
        return "its shape is not a list of sizes"
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return "its data_offsets are not [begin, end]"
    bits = math.prod(shape) * _BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        span = offsets[1] - offsets[0]
        return f"shape {shape} of {dtype} takes {bits / 8:g} bytes, its data_offsets span {span}"
    return ""


def _naturals(found: Any) -> bool:
    return isinstance(found, list) and all(type(n) is int and 0 <= n < 2**63 for n in found)


def refuse_pickle(path: str | os.PathLike[str]) -> None:
    """Refuse weights in a form that can run code when it is read: pickles, and archives with pickles inside.

    Raises: UserError: it is one, by its name or by its first bytes; the message says how to convert it.
    """
    found = Path(path)
    try:
        with open(found, "rb") as file:
            what = _pickle_kind(found, file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if what:
        target = found.with_suffix(".safetensors").name
        raise UserError(
            f"{found} is {what}: reading it could run code that it carries. Convert it once, where you trust it: "
            f"safetensors.torch.save_file(torch.load({found.name!r}, map_location='cpu', weights_only=True), "
            f"{target!r}), with the part that holds the tensors (often under 'state_dict') if it is nested"
        )


def _pickle_kind(path: Path, file: BinaryIO) -> str:
    head = file.read(8)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _archive_kind(file)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle"
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        return f"a {path.suffix} file, which is a pickle as a rule"
    return ""


def _archive_kind(file: BinaryIO) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "a damaged archive"
    pickled = any(name.lower().endswith((".pkl", ".pickle")) for name in names)
    return "an archive with a pickle inside (a PyTorch checkpoint)" if pickled else ""
