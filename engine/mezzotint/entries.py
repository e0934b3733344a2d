"""Entries of a store on disk: written in batches, verified when found, evicted when the store grows too large.

Below `Store`, which knows what entries mean; above `Index`, which knows rows, and `Blobs`, which knows files.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from typing import TYPE_CHECKING

from mezzotint.blobs import Blobs
from mezzotint.cache import Damage, GcReport, VerifyReport
from mezzotint.errors import StoreError
from mezzotint.index import Entry, Index, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from mezzotint.blobs import TemporaryBlob

__all__ = ["Entries"]

_BATCH_ENTRIES = 1000
_BATCH_BYTES = 8 << 20
_BATCH_SECONDS = 0.2
_STATE_DAYS = 7
# Other processes write too; after this long our sum of bytes is taken anew.
_RECOUNT_SECONDS = 30.0


class Entries:
    """The entries in a folder. Every method may raise StoreError.

    on_damage: called with (key, where its bytes were set aside or None, reason) when an entry is found damaged.
    """

    def __init__(self, folder: Path, limit_bytes: int, on_damage: Callable[[str, Path | None, str], None]) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.blobs = _prepare_folder(folder)
        self.hits = 0
        self.misses = 0
        self._on_damage = on_damage
        self._index = Index(folder, lambda path, reason: on_damage("", path, reason))
        self._lock = self._index.lock
        self._pending: dict[tuple[str, Kind], Entry] = {}
        self._pending_bytes = 0
        self._used: dict[tuple[str, Kind], float] = {}
        self._files: dict[str, tuple[str, str]] = {}
        self._timer: threading.Timer | None = None
        self._failure: StoreError | None = None
        self._total = self._index.size()
        self._counted = time.monotonic()
        self._patience = 0.0

    # --- finding ---

    def find(self, key: str, kind: Kind) -> Entry | None:
        """The verified entry of a key. A damaged one is set aside and reported."""
        with self._lock:
            entry = self._pending.get((key, kind)) or self._index.find(key, kind)
        reason = "" if entry is None else self._damage(entry)
        with self._lock:
            if entry is None or reason:
                self.misses += 1
            else:
                self.hits += 1
                self._used[key, kind] = time.time()
        if entry is not None and reason:
            self._set_aside(entry, reason)
            return None
        return entry

    def _damage(self, entry: Entry) -> str:
        return entry.damage() or ("" if entry.blob is None else self.blobs.damage(entry.blob))

    def _set_aside(self, entry: Entry, reason: str) -> Damage | None:
        """Move a damaged entry out of the way, unless another process has changed it meanwhile."""
        with self._index.transaction() as connection:
            if self._index.find(entry.key, entry.kind) != entry:
                return None
            path = self.blobs.quarantine(entry.blob) if entry.blob is not None else None
            if entry.blob is None:
                path = self.folder / "quarantine" / f"row-{secrets.token_hex(8)}"
                path.write_bytes(entry.body or b"")
            self._index.delete(connection, [entry])
        self._on_damage(entry.key, path, reason)
        return Damage(entry.key, path, reason)

    def missed(self) -> None:
        """The entry that was just found could not be used after all."""
        with self._lock:
            self.misses, self.hits = self.misses + 1, self.hits - 1

    def contains(self, keys: Iterable[str]) -> set[str]:
        """Which of the keys have a value or bytes, in one query; their bytes are not verified."""
        wanted = list(keys)
        with self._lock:
            pending = {key for key, kind in self._pending if kind != "state"}
            return self._index.present(wanted) | pending.intersection(wanted)

    def listed(self) -> list[tuple[Entry, float]]:
        """All entries without their bodies, and when each was last used; the least recently used first."""
        self.flush()
        uses = self._index.last_uses()
        return [(e, uses.get((e.key, e.kind), e.made)) for e in self._index.entries()]

    def size(self) -> int:
        """Bytes of all entries, each blob once."""
        self._recount()
        return self._total

    # --- writing ---

    def keep(self, entry: Entry) -> None:
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

    def keep_blob(self, entry: Entry, blob: TemporaryBlob) -> None:
        """Take an entry whose bytes are in a finished temporary file; both are on disk on return."""
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
                    self.blobs.adopt(blob)
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
                self.blobs.remove(digest)

    def drop(self, key: str, kind: Kind) -> None:
        """Remove an entry, if it is there."""
        with self._lock:
            self.flush()
            entry = self._index.find(key, kind)
            if entry is None:
                return
            with self._index.transaction() as connection:
                digests = self._index.delete(connection, [entry])
            self._remove_unused(digests)

    # --- keeping the store small ---

    @contextlib.contextmanager
    def pin(self, keys: Iterable[str]) -> Iterator[None]:
        """Keep keys from eviction, by any process, while the block runs or until this process dies."""
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
            for digest, path in list(self.blobs.all()):
                if digest not in named:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed + self.blobs.remove_temporaries()

    def clear(self) -> GcReport:
        """Remove every entry that is not pinned, all remembered file digests, and the quarantine."""
        report = self.gc(0)
        with self._index.transaction() as connection:
            connection.execute("delete from file")
        for path in (self.folder / "quarantine").iterdir():
            path.unlink(missing_ok=True)
        return report

    def verify(self) -> VerifyReport:
        """Read every byte, set damaged entries aside, and remove files that no entry names."""
        self.flush()
        self.blobs.forget_verified()
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
        """Flush, and let go of the index; it is opened again when it is needed."""
        try:
            self.flush()
        finally:
            self._index.close()


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
