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
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from mezzotint.atomic import open_atomic
from mezzotint.blobs import Blobs, BytesTensors, Evicted, FileTensors, TemporaryBlob, tensor_chunks, tensors_size
from mezzotint.cache import MISS, Cache, Copied, Damage, GcReport, MemoryStore, Miss, Row, Stats, VerifyReport
from mezzotint.codec import LoadedTypes, decode, encode
from mezzotint.errors import StoreError, UserError
from mezzotint.index import Entry, Index, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mezzotint.values import Value

__all__ = ["MISS", "Cache", "MemoryStore", "Miss", "Store", "parse_size"]

_INLINE_BYTES = 64 * 1024
_BATCH_ENTRIES = 1000
_BATCH_BYTES = 8 << 20
_BATCH_SECONDS = 0.2
_DEFAULT_LIMIT = "20GB"
_STATE_DAYS = 7
_JSON, _TENSORS = "application/json", "application/safetensors"
# Other processes write too; after this long our sum of bytes is taken anew.
_RECOUNT_SECONDS = 30.0
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
        self._blobs = _prepare_folder(self.folder)
        self._index = Index(self.folder, lambda path, reason: self.on_damage("", path, reason))
        self._lock = self._index.lock
        self._pending: dict[tuple[str, Kind], Entry] = {}
        self._pending_bytes = 0
        self._used: dict[tuple[str, Kind], float] = {}
        self._files: dict[str, tuple[str, str]] = {}
        self._timer: threading.Timer | None = None
        self._failure: StoreError | None = None
        self._hits = 0
        self._misses = 0
        self._total = self._index.size()
        self._counted = time.monotonic()
        self._patience = 0.0

    @classmethod
    def open_default(
        cls,
        *,
        types: Mapping[str, type[Value]] | None = None,
        on_damage: Callable[[str, Path | None, str], None] | None = None,
    ) -> Self:
        """The user's store: in MEZZOTINT_CACHE or the platform's cache folder, of MEZZOTINT_CACHE_LIMIT or 20GB."""
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
            self._keep(_entry(key, kind, media, None, b"".join(chunks), node, seconds))
        else:
            self._keep_blob(self._blobs.write(chunks, size), key, kind, media, node, seconds)

    def get(self, key: str) -> Any | Miss:
        """The value of a key, verified, or `MISS`. Tensors load when they are first touched."""
        return self._get(key, "value", lazy=True)

    def _get(self, key: str, kind: Kind, *, lazy: bool) -> Any | Miss:
        entry = self._sound(key, kind)
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
        with self._lock:
            self._misses, self._hits = self._misses + 1, self._hits - 1
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
        wanted = list(keys)
        with self._lock:
            pending = {key for key, kind in self._pending if kind != "state"}
            return self._index.present(wanted) | pending.intersection(wanted)

    # --- encoded outputs ---

    def put_bytes(
        self, key: str, data: bytes | BinaryIO, media_type: str, *, node: str = "", seconds: float = 0.0
    ) -> None:
        """Keep an encoded output: bytes, or a binary file that is read from where it stands."""
        file = io.BytesIO(data) if isinstance(data, bytes) else data
        head = file.read(_INLINE_BYTES)
        if len(head) < _INLINE_BYTES:
            self._keep(_entry(key, "bytes", media_type, None, head, node, seconds))
            return
        wanted = len(data) if isinstance(data, bytes) else len(head)
        self._keep_blob(self._blobs.write(_chunks(head, file), wanted), key, "bytes", media_type, node, seconds)

    def get_bytes(self, key: str) -> bytes | Miss:
        """The bytes of a key, verified, or `MISS`."""
        entry = self._sound(key, "bytes")
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
        entry = self._sound(key, "bytes")
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
        with self._lock:
            self.flush()
            entry = self._index.find(key, "state")
            if entry is not None:
                with self._index.transaction() as connection:
                    digests = self._index.delete(connection, [entry])
                self._remove_unused(digests)

    # --- reading an entry ---

    def _sound(self, key: str, kind: Kind) -> Entry | None:
        """The verified entry of a key. A damaged one is set aside and reported."""
        with self._lock:
            entry = self._pending.get((key, kind)) or self._index.find(key, kind)
        reason = "" if entry is None else self._damage(entry)
        with self._lock:
            if entry is None or reason:
                self._misses += 1
            else:
                self._hits += 1
                self._used[key, kind] = time.time()
        if entry is not None and reason:
            self._set_aside(entry, reason)
            return None
        return entry

    def _damage(self, entry: Entry) -> str:
        return entry.damage() or ("" if entry.blob is None else self._blobs.damage(entry.blob))

    def _set_aside(self, entry: Entry, reason: str) -> Damage | None:
        """Move a damaged entry out of the way, unless another process has changed it meanwhile."""
        with self._index.transaction() as connection:
            if self._index.find(entry.key, entry.kind) != entry:
                return None
            path = self._blobs.quarantine(entry.blob) if entry.blob is not None else None
            if entry.blob is None:
                path = self.folder / "quarantine" / f"row-{secrets.token_hex(8)}"
                path.write_bytes(entry.body or b"")
            self._index.delete(connection, [entry])
        self.on_damage(entry.key, path, reason)
        return Damage(entry.key, path, reason)

    # --- writing entries ---

    def _keep(self, entry: Entry) -> None:
        """Take a small entry; states are committed at once, others in batches."""
        with self._lock:
            self._raise_failure()
            self._pending[entry.key, entry.kind] = entry
            self._pending_bytes += entry.size
            full = len(self._pending) >= _BATCH_ENTRIES or self._pending_bytes >= _BATCH_BYTES
            if entry.kind == "state" or full:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(_BATCH_SECONDS, self._flush_later)
                self._timer.daemon = True
                self._timer.start()

    def _keep_blob(
        self, blob: TemporaryBlob, key: str, kind: Kind, media: str, node: str, seconds: float
    ) -> None:
        entry = _entry(key, kind, media, blob, None, node, seconds)
        with self._lock:
            try:
                self._raise_failure()
                self._commit([entry], [blob])
            finally:
                blob.path.unlink(missing_ok=True)
        self._bound()

    def flush(self) -> None:
        """Commit what waits in memory, then evict if the store has grown past its limit."""
        with self._lock:
            self._raise_failure()
            self._commit([], [])
        self._bound()

    def _flush_later(self) -> None:
        try:
            self.flush()
        except StoreError as error:
            self._failure = error  # raised by the next call: nobody listens to this thread

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise StoreError(str(failure)) from failure

    def _commit(self, entries: list[Entry], blobs: list[TemporaryBlob]) -> None:
        """One transaction for the given entries and for all that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries = [*self._pending.values(), *entries]
        used, files, wanted = self._used, self._files, sum(entry.size for entry in entries)
        self._pending, self._pending_bytes, self._used, self._files = {}, 0, {}, {}
        if not (entries or used or files):
            return
        try:
            with self._index.transaction(wanted) as connection:
                replaced = self._index.blobs_of(connection, entries)
                for blob in blobs:
                    self._blobs.adopt(blob)
                self._index.write(connection, entries, used, files)
        except StoreError:
            with contextlib.suppress(StoreError):
                self._remove_unused({blob.digest for blob in blobs})
            raise
        self._total += wanted
        self._remove_unused(replaced)

    def _remove_unused(self, digests: set[str]) -> None:
        """Remove those of the blobs that no entry names (any more).

        In a transaction of its own, after the one that took the entries away: a kill in between leaves a file too
        many, never an entry without its file.
        """
        if not digests:
            return
        with self._index.transaction() as connection:
            for digest in self._index.unused(connection, digests):
                self._blobs.remove(digest)

    # --- keeping the store small ---

    def pin(self, keys: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Keep keys from eviction, by any process, while the block runs or until this process dies."""
        return self._pin(list(keys))

    @contextlib.contextmanager
    def _pin(self, keys: list[str]) -> Iterator[None]:
        token = self._index.add_pin(keys)
        try:
            yield
        finally:
            self._index.drop_pin(token)

    def _bound(self) -> None:
        if time.monotonic() - self._counted > _RECOUNT_SECONDS:
            self._recount()
        if self._total > self.limit_bytes and time.monotonic() > self._patience:
            # A little further than needed, so that not every put evicts.
            self._evict(self.limit_bytes, self.limit_bytes - self.limit_bytes // 20)
            if self._total > self.limit_bytes:  # all the rest is pinned
                self._patience = time.monotonic() + _RECOUNT_SECONDS

    def _recount(self) -> None:
        self._total = self._index.size()
        self._counted = time.monotonic()

    def _evict(self, limit: int, goal: int) -> GcReport:
        """If the store is larger than `limit`, evict down to `goal`. Both in bytes."""
        with self._index.transaction() as connection:
            before = total = self._index.size()
            doomed: list[Entry] = []
            if total > limit:
                pinned = self._index.pinned(connection)
                candidates = [e for e in _eviction_order(self._index.entries()) if e.key not in pinned]
                sharers = self._index.sharers(connection)
                for entry in candidates:
                    if total <= goal:
                        break
                    doomed.append(entry)
                    total -= _freed(entry, sharers)
            digests = self._index.delete(connection, doomed)
        self._remove_unused(digests)
        self._total, self._counted = total, time.monotonic()
        return GcReport(len(doomed), before - total, total)

    def gc(self, limit: int | None = None) -> GcReport:
        """Evict down to `limit` bytes (the store's own if None), and remove files that no entry names."""
        self.flush()
        goal = self.limit_bytes if limit is None else limit
        report = self._evict(goal, goal)
        leftovers = self._remove_leftovers()
        self._index.shrink()
        return GcReport(report.entries, report.freed, report.kept, leftovers)

    def _remove_leftovers(self) -> int:
        """Blobs without an entry and temporary files of dead processes: what kills leave."""
        removed = 0
        with self._index.transaction() as connection:
            named = self._index.sharers(connection)
            for digest, path in list(self._blobs.all()):
                if digest not in named:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed + self._blobs.remove_temporaries()

    def clear(self) -> GcReport:
        """Remove every entry that is not pinned, all remembered file digests, and the quarantine."""
        report = self.gc(0)
        with self._index.transaction() as connection:
            connection.execute("delete from file")
        for path in (self.folder / "quarantine").iterdir():
            path.unlink(missing_ok=True)
        return report

    # --- looking ---

    def ls(self) -> list[Row]:
        """All entries, the least recently used first."""
        self.flush()
        uses = self._index.last_uses()
        return [
            Row(e.key, e.kind, e.media, e.size, e.node, e.seconds, e.made, uses.get((e.key, e.kind), e.made))
            for e in self._index.entries()
        ]

    def stats(self) -> Stats:
        """Entries and bytes of the store; hits and misses of this process."""
        self.flush()
        self._recount()
        return Stats(len(self._index.entries()), self._total, self.limit_bytes, self._hits, self._misses)

    def verify(self) -> VerifyReport:
        """Read every byte, set damaged entries aside, and remove files that no entry names."""
        self.flush()
        self._blobs.forget_verified()
        damaged: list[Damage] = []
        entries = self._index.entries()
        for listed in entries:
            entry = self._index.find(listed.key, listed.kind)
            reason = "" if entry is None else self._damage(entry)
            found = self._set_aside(entry, reason) if entry is not None and reason else None
            if found is not None:
                damaged.append(found)
        return VerifyReport(len(entries), self._index.size(), tuple(damaged), self._remove_leftovers())

    # --- digests of files ---

    def recall_file(self, path: str, stamp: str) -> str | None:
        """The digest remembered for a file, if its stamp is still the same."""
        with self._lock:
            known = self._files.get(path) or next(
                iter(self._index.rows("select stamp, digest from file where path = ?", path)), None
            )
        return str(known[1]) if known is not None and known[0] == stamp else None

    def remember_file(self, path: str, stamp: str, digest: str) -> None:
        """Remember a file's digest; it is committed with the next batch."""
        with self._lock:
            self._files[path] = (stamp, digest)

    def close(self) -> None:
        """Flush, and let go of the index. The store opens it again when it is used again."""
        try:
            self.flush()
        finally:
            self._index.close()


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


def _eviction_order(entries: list[Entry]) -> list[Entry]:
    """Least recently used first; young states last."""
    young = time.time() - _STATE_DAYS * 86400
    return sorted(entries, key=lambda e: e.kind == "state" and e.made > young)


def _freed(entry: Entry, sharers: dict[str, int]) -> int:
    """Bytes that evicting the entry frees; counts its blob's users down."""
    if entry.blob is None:
        return entry.size
    sharers[entry.blob] -= 1
    return 0 if sharers[entry.blob] else entry.size


def _prepare_folder(folder: Path) -> Blobs:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        blobs = Blobs(folder)
        probe = blobs.temporary()
        probe.touch()
        probe.unlink()
        blobs.remove_temporaries()
    except OSError as error:
        raise StoreError(
            f"cannot use the folder {folder} as a store: {error}; set MEZZOTINT_CACHE to one that can be written"
        ) from error
    return blobs


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
