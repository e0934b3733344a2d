"""What the engine asks of a store, and the store without a disk.

A store maps keys (the content keys of a plan's steps) to values, to encoded outputs, and to the saved states of
nodes that were interrupted.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, Protocol

from mezzotint.atomic import write_bytes
from mezzotint.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = [
    "MISS",
    "Cache",
    "Copied",
    "Damage",
    "GcReport",
    "MemoryStore",
    "Miss",
    "Row",
    "Stats",
    "VerifyReport",
]


class Miss(enum.Enum):
    """The type of `MISS`."""

    MISS = "miss"

    def __bool__(self) -> Literal[False]:
        return False


MISS: Final = Miss.MISS
"""What `get` gives for a key that is not there; None is a value."""


@dataclass(frozen=True)
class Row:
    """One entry, for listings. size: bytes. seconds: what making it took. made, used: Unix times."""

    key: str
    kind: Literal["value", "bytes", "state"]
    media_type: str
    size: int
    node: str
    seconds: float
    made: float
    used: float


@dataclass(frozen=True)
class Copied:
    """A file that was copied out of the store. size: bytes."""

    media_type: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Damage:
    """An entry that could not be used. path: where its bytes were set aside, or None."""

    key: str
    path: Path | None
    reason: str


@dataclass(frozen=True)
class GcReport:
    """entries: how many were evicted. freed: bytes. kept: bytes that remain. leftovers: files without an entry."""

    entries: int
    freed: int
    kept: int
    leftovers: int = 0


@dataclass(frozen=True)
class VerifyReport:
    """What reading every byte of a store found."""

    entries: int
    bytes: int
    damaged: tuple[Damage, ...]
    leftovers: int


@dataclass(frozen=True)
class Stats:
    """entries, bytes: in the store. hits, misses: of this process."""

    entries: int
    bytes: int
    limit: int
    hits: int
    misses: int


class Cache(Protocol):
    """A place for results. All methods may be called from any thread, and may raise StoreError."""

    def get(self, key: str) -> Any | Miss:
        """The value of a key, or `MISS`. Tensors load when they are first touched."""
        ...

    def contains_many(self, keys: Iterable[str]) -> set[str]:
        """Which of the keys have a value or bytes."""
        ...

    def put(self, key: str, value: Any, *, node: str = "", seconds: float = 0.0) -> None:
        """Keep a value. node, seconds: what made it and how long that took, for listings."""
        ...

    def put_bytes(
        self, key: str, data: bytes | BinaryIO, media_type: str, *, node: str = "", seconds: float = 0.0
    ) -> None:
        """Keep an encoded output: bytes, or a binary file that is read from where it stands."""
        ...

    def get_bytes(self, key: str) -> bytes | Miss:
        """The bytes of a key."""
        ...

    def copy_to(self, key: str, path: str | os.PathLike[str]) -> Copied | Miss:
        """Write the bytes of a key to a file, atomically. Raises: UserError: the file cannot be written."""
        ...

    def save_state(self, key: str, state: Mapping[str, Any]) -> None:
        """Keep the state of a node that may be interrupted; it replaces the key's older state atomically."""
        ...

    def load_state(self, key: str) -> dict[str, Any] | None:
        """The newest state of a key, wholly loaded."""
        ...

    def drop_state(self, key: str) -> None:
        """Forget a key's state: the node has finished."""
        ...

    def pin(self, keys: Iterable[str]) -> AbstractContextManager[None]:
        """Keep the keys, present or yet to come, from eviction while the block runs."""
        ...

    def recall_file(self, path: str, stamp: str) -> str | None:
        """The digest remembered for a file, if its stamp (size, times, inode) is still the same."""
        ...

    def remember_file(self, path: str, stamp: str, digest: str) -> None:
        """Remember a file's digest."""
        ...

    def flush(self) -> None:
        """Write what waits in memory."""
        ...

    def close(self) -> None:
        """Flush and let go of files."""
        ...


class MemoryStore:
    """A store in memory, unbounded and private: for tests, benchmarks and runs that leave no trace.

    It keeps the value objects themselves. Nothing checks that they could be stored.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._bytes: dict[str, tuple[bytes, str]] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._files: dict[str, tuple[str, str]] = {}
        self._rows: dict[tuple[str, str], Row] = {}
        self._hits = 0
        self._misses = 0

    def __enter__(self) -> MemoryStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, found: bool) -> None:
        if found:
            self._hits += 1
        else:
            self._misses += 1

    def get(self, key: str) -> Any | Miss:
        """See `Cache.get`."""
        value = self._values.get(key, MISS)
        self._count(value is not MISS)
        return value

    def contains_many(self, keys: Iterable[str]) -> set[str]:
        """See `Cache.contains_many`."""
        return {key for key in keys if key in self._values or key in self._bytes}

    def put(self, key: str, value: Any, *, node: str = "", seconds: float = 0.0) -> None:
        """See `Cache.put`."""
        self._values[key] = value
        now = time.time()
        self._rows[key, "value"] = Row(key, "value", "", 0, node, seconds, now, now)

    def put_bytes(
        self, key: str, data: bytes | BinaryIO, media_type: str, *, node: str = "", seconds: float = 0.0
    ) -> None:
        """See `Cache.put_bytes`."""
        held = data if isinstance(data, bytes) else data.read()
        self._bytes[key] = (held, media_type)
        now = time.time()
        self._rows[key, "bytes"] = Row(key, "bytes", media_type, len(held), node, seconds, now, now)

    def get_bytes(self, key: str) -> bytes | Miss:
        """See `Cache.get_bytes`."""
        self._count(key in self._bytes)
        return self._bytes[key][0] if key in self._bytes else MISS

    def copy_to(self, key: str, path: str | os.PathLike[str]) -> Copied | Miss:
        """See `Cache.copy_to`."""
        if key not in self._bytes:
            return MISS
        data, media_type = self._bytes[key]
        try:
            write_bytes(path, data)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}") from error
        return Copied(media_type, len(data), hashlib.sha256(data).hexdigest())

    def save_state(self, key: str, state: Mapping[str, Any]) -> None:
        """See `Cache.save_state`."""
        self._states[key] = dict(state)

    def load_state(self, key: str) -> dict[str, Any] | None:
        """See `Cache.load_state`."""
        state = self._states.get(key)
        return None if state is None else dict(state)

    def drop_state(self, key: str) -> None:
        """See `Cache.drop_state`."""
        self._states.pop(key, None)

    def pin(self, keys: Iterable[str]) -> AbstractContextManager[None]:
        """See `Cache.pin`; nothing is ever evicted here."""
        return contextlib.nullcontext()

    def recall_file(self, path: str, stamp: str) -> str | None:
        """See `Cache.recall_file`."""
        known = self._files.get(path)
        return known[1] if known is not None and known[0] == stamp else None

    def remember_file(self, path: str, stamp: str, digest: str) -> None:
        """See `Cache.remember_file`."""
        self._files[path] = (stamp, digest)

    def ls(self) -> list[Row]:
        """All entries, in the order in which they were made."""
        return [replace(row) for row in self._rows.values()]

    def stats(self) -> Stats:
        """Counts; the bytes of values are not known."""
        size = sum(len(data) for data, _ in self._bytes.values())
        entries = len(self._values) + len(self._bytes) + len(self._states)
        return Stats(entries, size, 0, self._hits, self._misses)

    def clear(self) -> None:
        """Forget everything."""
        for held in (self._values, self._bytes, self._states, self._files, self._rows):
            held.clear()

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing to let go of."""
