"""How values and files lie in the store's folder: as bytes whose names are their digests.

A stored value is one run of bytes, a safetensors file with one text in its header: the JSON half of the value.
Files are written to `tmp/`, synced, and renamed to `blobs/<aa>/<sha256>` inside a transaction of the index.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import secrets
import shutil
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mezzotint.errors import StoreError
from mezzotint.index import is_alive, process_start

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

__all__ = ["Blobs", "BytesTensors", "Evicted", "FileTensors", "TemporaryBlob", "tensor_chunks", "tensors_size"]

_SAFETENSORS_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
_TORCH_NAMES = {short: name for name, short in _SAFETENSORS_NAMES.items()}
_CHUNK = 1 << 22


# --- tensors as bytes ---


def tensors_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors' numbers."""
    return sum(t.numel() * t.element_size() for t in tensors.values())


def tensor_chunks(tensors: Mapping[str, Tensor], text: bytes = b"") -> Iterator[bytes | memoryview]:
    """A safetensors file, piece by piece, without a second copy of the numbers.

    tensors: dense, in C order, on the CPU. text: ASCII, kept in the header.
    """
    header: dict[str, Any] = {"__metadata__": {"mezzotint": text.decode("ascii")}} if text else {}
    offset = 0
    # The widest elements first: every tensor then starts at a multiple of its element's size.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        short = _SAFETENSORS_NAMES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": short, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header, separators=(",", ":")).encode("ascii")
    head += b" " * (-len(head) % 8)
    yield struct.pack("<Q", len(head)) + head
    for _, tensor in ordered:
        yield from _numbers(tensor)


def _numbers(tensor: Tensor) -> Iterator[memoryview]:
    if sys.byteorder != "little":
        raise StoreError("the store works on little-endian machines only")
    size = tensor.numel() * tensor.element_size()
    if size:
        block = memoryview((ctypes.c_ubyte * size).from_address(tensor.data_ptr())).cast("B")
        for start in range(0, size, _CHUNK):
            yield block[start : start + _CHUNK]


class _Header:
    """Where each tensor lies in a run of bytes that this store wrote and whose digest was right."""

    def __init__(self, buffer: Any) -> None:
        (length,) = struct.unpack_from("<Q", buffer, 0)
        self.entries: dict[str, Any] = json.loads(bytes(buffer[8 : 8 + length]))
        self.start = 8 + length
        self.text: str = self.entries.pop("__metadata__", {}).get("mezzotint", "")

    def span(self, name: str) -> tuple[int, int]:
        begin, end = self.entries[name]["data_offsets"]
        return self.start + begin, self.start + end

    def tensor(self, buffer: Any, name: str) -> Tensor:
        import torch

        begin, end = self.span(name)
        entry = self.entries[name]
        dtype = getattr(torch, _TORCH_NAMES[entry["dtype"]])
        # Torch's own memory, aligned as it always is: some CPU kernels round differently on other alignments.
        flat = torch.empty(end - begin, dtype=torch.uint8)
        if end > begin:
            flat.copy_(torch.frombuffer(buffer, dtype=torch.uint8, count=end - begin, offset=begin))
        return flat.view(dtype).reshape(entry["shape"])


class Evicted(StoreError):
    """A blob has gone since its entry was found: another process evicted it."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"a stored value was evicted while it was in use ({path.name[:12]}…): "
            f"run again, with a larger MEZZOTINT_CACHE_LIMIT"
        )


class BytesTensors:
    """Tensors inside a run of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, name: str) -> Tensor:
        buffer = bytearray(self._data)  # torch warns of memory that it may not write to
        return _Header(buffer).tensor(buffer, name)

    def raw(self, name: str) -> bytes:
        begin, end = _Header(self._data).span(name)
        return self._data[begin:end]

    def text(self) -> str:
        """The text in the header."""
        return _Header(self._data).text


class FileTensors:
    """Tensors inside a blob, which is opened at the first read of each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[mmap.mmap]:
        try:
            with open(self._path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
                yield mapped
        except FileNotFoundError as error:
            raise Evicted(self._path) from error
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error

    def read(self, name: str) -> Tensor:
        with self._mapped() as mapped:
            return _Header(mapped).tensor(mapped, name)

    def raw(self, name: str) -> bytes:
        with self._mapped() as mapped:
            begin, end = _Header(mapped).span(name)
            return mapped[begin:end]

    def text(self) -> str:
        """The text in the header."""
        with self._mapped() as mapped:
            return _Header(mapped).text


# --- files ---


@dataclass(frozen=True)
class TemporaryBlob:
    """A finished, synced file that has no name in the store yet. size: bytes."""

    path: Path
    digest: str
    size: int


class Blobs:
    """The files of one store. Naming and removing them is only safe inside a transaction of the store's index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified: dict[str, tuple[int, int, int]] = {}
        for name in ("blobs", "tmp", "quarantine"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob with this digest lies, if it is there."""
        return self.folder / "blobs" / digest[:2] / digest

    def temporary(self) -> Path:
        """A new name for a file in `tmp/`, from which others can tell whether its writer lives."""
        pid = os.getpid()
        return self.folder / "tmp" / f"{pid}-{process_start(pid)}-{secrets.token_hex(8)}-{socket.gethostname()}"

    def remove_temporaries(self) -> int:
        """Remove the temporary files of dead processes; how many there were."""
        removed = 0
        for path in list((self.folder / "tmp").iterdir()):
            with contextlib.suppress(FileNotFoundError):
                pid, start, _, host = (*path.name.split("-", 3), "", "", "")[:4]
                if not (pid.isdigit() and is_alive(host, int(pid), start, path.stat().st_mtime)):
                    path.unlink()
                    removed += 1
        return removed

    def write(self, chunks: Iterator[bytes | memoryview], wanted: int) -> TemporaryBlob:
        """Write and sync a temporary file. wanted: bytes, for the message when the disk is full."""
        path = self.temporary()
        digest, size = hashlib.sha256(), 0
        try:
            with open(path, "xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise self.failure(error, wanted) from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return TemporaryBlob(path, digest.hexdigest(), size)

    def adopt(self, blob: TemporaryBlob) -> None:
        """Give a temporary file its name."""
        final = self.path(blob.digest)
        try:
            final.parent.mkdir(mode=0o700, exist_ok=True)
            # Also over a blob of that name: the same bytes, and if it was damaged, it is whole again.
            os.replace(blob.path, final)
        except OSError as error:
            raise self.failure(error, blob.size) from error

    def remove(self, digest: str) -> None:
        """Remove the blob with this digest, if it is there."""
        self._verified.pop(digest, None)
        self.path(digest).unlink(missing_ok=True)

    def damage(self, digest: str) -> str:
        """Why the blob cannot be used, or an empty string.

        Its bytes are read once per process, and again when the file has changed.
        """
        path = self.path(digest)
        try:
            with open(path, "rb") as file:
                stat = os.fstat(file.fileno())
                version = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
                if self._verified.get(digest) == version:
                    return ""
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return "the file is missing"
        except OSError as error:
            return f"the file cannot be read: {error}"
        if found != digest:
            return f"the digest of its bytes is {found}"
        self._verified[digest] = version
        return ""

    def forget_verified(self) -> None:
        """Read everything anew from now on."""
        self._verified.clear()

    def open(self, digest: str) -> BinaryIO:
        """A blob, for reading. Raises: Evicted: it is gone."""
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError as error:
            raise Evicted(self.path(digest)) from error

    def quarantine(self, digest: str) -> Path | None:
        """Set a damaged blob aside, and say where; None if it is gone."""
        self._verified.pop(digest, None)
        aside = self.folder / "quarantine" / f"{digest}-{secrets.token_hex(4)}"
        try:
            os.replace(self.path(digest), aside)
        except FileNotFoundError:
            return None
        return aside

    def all(self) -> Iterator[tuple[str, Path]]:
        """Digests and paths of all blobs that are there."""
        for inner in (self.folder / "blobs").iterdir():
            for path in inner.iterdir() if inner.is_dir() else ():
                yield path.name, path

    def failure(self, error: OSError, wanted: int) -> StoreError:
        """What to raise when writing failed."""
        free = shutil.disk_usage(self.folder).free
        return StoreError(f"cannot write {wanted} bytes to the store {self.folder} ({free} bytes free): {error}")
