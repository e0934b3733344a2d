"""The store on disk: content-addressed, verified on read, bounded in bytes, shared by processes.

    <folder>/index.sqlite        keys, small values, pins, remembered file digests
    <folder>/blobs/<aa>/<sha256> everything of 64 KiB or more, once per content
    <folder>/quarantine/         damaged entries, set aside
    <folder>/tmp/                files being written

Small values wait in memory for at most 0.2 s before they are committed together; what is larger is on disk when
`put` returns. Eviction takes the least recently used entries first. States of interrupted nodes that are younger
than a week go last, when all else is gone; older ones are treated like values. Pinned keys never go.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from mezzotint.atomic import open_atomic
from mezzotint.blobs import BytesTensors, Evicted, FileTensors, TemporaryBlob, tensor_chunks, tensors_size
from mezzotint.cache import MISS, Cache, Copied, GcReport, MemoryStore, Miss, Row, Stats, VerifyReport
from mezzotint.codec import LoadedTypes, decode, encode
from mezzotint.entries import Entries
from mezzotint.errors import StoreError, UserError
from mezzotint.index import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mezzotint.values import Value

__all__ = ["MISS", "Cache", "MemoryStore", "Miss", "Store", "parse_size"]

_INLINE_BYTES = 64 * 1024
_DEFAULT_LIMIT = "20GB"
_JSON, _TENSORS = "application/json", "application/safetensors"
_CHUNK = 1 << 20


def _ignore_damage(key: str, path: Path | None, reason: str) -> None:
    """Nobody wants to know."""


class Store:
    """A store in a folder, which is made if need be. See `Cache` for what most methods promise.

    limit_bytes: what the entries may take together. types: the classes that stored values may have, by
    `codec.type_name`; without it, all that are defined in this process. on_damage: called with (key, where its
    bytes were set aside or None, reason) when an entry turns out unusable; the entry is a miss.

    Raises: StoreError: the folder cannot be made or written, or is of another version.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        limit_bytes: int,
        types: Mapping[str, type[Value]] | None = None,
        on_damage: Callable[[str, Path | None, str], None] | None = None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.limit_bytes = limit_bytes
        self.types: Mapping[str, type[Value]] = LoadedTypes() if types is None else types
        self.on_damage = on_damage or _ignore_damage
        self._entries = Entries(self.folder, limit_bytes, lambda *damage: self.on_damage(*damage))
        self._blobs = self._entries.blobs

    @classmethod
    def open_default(
        cls,
        *,
        types: Mapping[str, type[Value]] | None = None,
        on_damage: Callable[[str, Path | None, str], None] | None = None,
    ) -> Self:
        """The user's store: in MEZZOTINT_CACHE or the platform's cache folder; MEZZOTINT_CACHE_LIMIT or 20GB."""
        folder = os.environ.get("MEZZOTINT_CACHE")
        if not folder:
            import platformdirs

            folder = platformdirs.user_cache_dir("mezzotint", appauthor=False)
        limit = parse_size(os.environ.get("MEZZOTINT_CACHE_LIMIT") or _DEFAULT_LIMIT, "MEZZOTINT_CACHE_LIMIT")
        return cls(folder, limit_bytes=limit, types=types, on_damage=on_damage)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- values ---

    def put(self, key: str, value: Any, *, node: str = "", seconds: float = 0.0) -> None:
        """Keep a value; of 64 KiB or more, it is on disk on return. Raises: PluginError: it cannot be stored."""
        self._put(key, "value", value, node, seconds)

    def _put(self, key: str, kind: Kind, value: Any, node: str = "", seconds: float = 0.0) -> None:
        encoded = encode(value, self.types)
        text = json.dumps(encoded.meta, separators=(",", ":"), allow_nan=False).encode("ascii")
        media = _TENSORS if encoded.tensors else _JSON
        size = len(text) + tensors_size(encoded.tensors)
        chunks: Iterator[bytes | memoryview]
        chunks = tensor_chunks(encoded.tensors, text) if encoded.tensors else iter((text,))
        if size < _INLINE_BYTES:
            self._entries.keep(_entry(key, kind, media, None, b"".join(chunks), node, seconds))
        else:
            blob = self._blobs.write(chunks, size)
            self._entries.keep_blob(_entry(key, kind, media, blob, None, node, seconds), blob)

    def get(self, key: str) -> Any | Miss:
        """The value of a key, verified, or `MISS`. Tensors load when they are first touched."""
        return self._get(key, "value", lazy=True)

    def _get(self, key: str, kind: Kind, *, lazy: bool) -> Any | Miss:
        entry = self._entries.find(key, kind)
        if entry is None:
            return MISS
        try:
            return self._decode(entry, lazy)
        except Evicted:
            return self._missed()
        except StoreError as error:
            # Whole, but not ours to read: a plugin is missing or has changed its class. It may be another's hit.
            self.on_damage(key, None, str(error))
            return self._missed()

    def _missed(self) -> Miss:
        self._entries.missed()
        return MISS

    def _decode(self, entry: Entry, lazy: bool) -> Any:
        tensors: FileTensors | BytesTensors
        if entry.blob is not None:
            tensors = FileTensors(self._blobs.path(entry.blob))
        else:
            tensors = BytesTensors(entry.body or b"")
        text = tensors.text() if entry.media == _TENSORS else self._read(entry)
        return decode(json.loads(text), tensors, self.types, lazy=lazy)

    def _opened(self, entry: Entry) -> BinaryIO:
        return io.BytesIO(entry.body or b"") if entry.blob is None else self._blobs.open(entry.blob)

    def _read(self, entry: Entry) -> bytes:
        with self._opened(entry) as file:
            return file.read()

    def contains_many(self, keys: Iterable[str]) -> set[str]:
        """Which of the keys have a value or bytes, in one query; their bytes are not verified."""
        return self._entries.contains(keys)

    # --- encoded outputs ---

    def put_bytes(
        self, key: str, data: bytes | BinaryIO, media_type: str, *, node: str = "", seconds: float = 0.0
    ) -> None:
        """Keep an encoded output: bytes, or a binary file that is read from where it stands."""
        file = io.BytesIO(data) if isinstance(data, bytes) else data
        head = file.read(_INLINE_BYTES)
        if len(head) < _INLINE_BYTES:
            self._entries.keep(_entry(key, "bytes", media_type, None, head, node, seconds))
            return
        wanted = len(data) if isinstance(data, bytes) else len(head)
        blob = self._blobs.write(_chunks(head, file), wanted)
        self._entries.keep_blob(_entry(key, "bytes", media_type, blob, None, node, seconds), blob)

    def get_bytes(self, key: str) -> bytes | Miss:
        """The bytes of a key, verified, or `MISS`."""
        entry = self._entries.find(key, "bytes")
        if entry is None:
            return MISS
        try:
            return self._read(entry)
        except Evicted:
            return self._missed()

    def copy_to(self, key: str, path: str | os.PathLike[str]) -> Copied | Miss:
        """Copy the bytes of a key to a file that appears whole or not at all, or `MISS`.

        Raises: UserError: the file cannot be written.
        """
        entry = self._entries.find(key, "bytes")
        if entry is None:
            return MISS
        try:
            with self._opened(entry) as source, open_atomic(path) as target:
                shutil.copyfileobj(source, target, _CHUNK)
        except Evicted:
            return self._missed()
        except OSError as error:
            raise UserError(f"cannot write {path} ({entry.size} bytes): {error}") from error
        digest = entry.blob or hashlib.sha256(entry.body or b"").hexdigest()
        return Copied(entry.media, entry.size, digest)

    # --- states ---

    def save_state(self, key: str, state: Mapping[str, Any]) -> None:
        """Keep a node's state in place of its older one: after a kill there is the one or the other, whole."""
        self._put(key, "state", dict(state))

    def load_state(self, key: str) -> dict[str, Any] | None:
        """The newest state of a key, wholly loaded, or None."""
        state = self._get(key, "state", lazy=False)
        return None if state is MISS else state

    def drop_state(self, key: str) -> None:
        """Forget a key's state."""
        self._entries.drop(key, "state")

    # --- keeping it small and sound ---

    def pin(self, keys: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Keep keys from eviction, by any process, while the block runs or until this process dies."""
        return self._entries.pin(keys)

    def flush(self) -> None:
        """Commit what waits in memory, then evict if the store has grown past its limit."""
        self._entries.flush()

    def gc(self, limit: int | None = None) -> GcReport:
        """Evict down to `limit` bytes (the store's own if None), and remove files that no entry names."""
        return self._entries.gc(self.limit_bytes if limit is None else limit)

    def clear(self) -> GcReport:
        """Remove every entry that is not pinned, all remembered file digests, and the quarantine."""
        return self._entries.clear()

    def verify(self) -> VerifyReport:
        """Read every byte, set damaged entries aside, and remove files that no entry names."""
        return self._entries.verify()

    def close(self) -> None:
        """Flush, and let go of the index. The store opens it again when it is used again."""
        self._entries.close()

    # --- looking ---

    def ls(self) -> list[Row]:
        """All entries, the least recently used first."""
        return [
            Row(e.key, e.kind, e.media, e.size, e.node, e.seconds, e.made, used)
            for e, used in self._entries.listed()
        ]

    def stats(self) -> Stats:
        """Entries and bytes of the store; hits and misses of this process."""
        count = len(self._entries.listed())
        return Stats(count, self._entries.size(), self.limit_bytes, self._entries.hits, self._entries.misses)

    # --- digests of files ---

    def recall_file(self, path: str, stamp: str) -> str | None:
        """The digest remembered for a file, if its stamp is still the same."""
        return self._entries.recall_file(path, stamp)

    def remember_file(self, path: str, stamp: str, digest: str) -> None:
        """Remember a file's digest; it is committed with the next batch."""
        self._entries.remember_file(path, stamp, digest)


def _entry(
    key: str, kind: Kind, media: str, blob: TemporaryBlob | None, body: bytes | None, node: str, seconds: float
) -> Entry:
    digest = blob.digest if blob is not None else None
    size = blob.size if blob is not None else len(body or b"")
    entry = Entry(key, kind, media, digest, "", size, node, seconds, time.time(), body)
    return entry.sealed()


def _chunks(head: bytes, file: BinaryIO) -> Iterator[bytes | memoryview]:
    yield head
    while chunk := file.read(_CHUNK):
        yield chunk


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str, name: str = "size") -> int:
    """Bytes from a text like "20GB", "512 MiB" or "1000".

    Raises: UserError: it is no such text; `name` says what it was for.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UserError(f'{name}: {text!r} is not a number of bytes; wanted e.g. "20GB" or "512MiB"')
    number, unit, binary = match.groups(default="")
    units = _BINARY_UNITS if binary else _UNITS
    return int(float(number) * units[unit.upper()])
