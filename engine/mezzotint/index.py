"""The store's SQLite index: which keys there are, where their bytes lie, who uses them, and when they were used.

One connection per process, used under one lock; processes are kept apart by SQLite. All changes happen in
immediate transactions, and files are named and removed only inside one, so no process can remove a file that
another has just decided to share.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import sqlite3
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mezzotint.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["Entry", "Index", "Kind", "is_alive", "process_start"]

Kind = Literal["value", "bytes", "state"]

_VERSION = 1
_SCHEMA = """
create table if not exists entry (
    key text not null, kind text not null, media text not null, blob text, digest text not null,
    size integer not null, node text not null, seconds real not null, made real not null, body blob,
    primary key (key, kind));
create index if not exists entry_blob on entry (blob) where blob is not null;
create table if not exists used (
    key text not null, kind text not null, at real not null, primary key (key, kind)) without rowid;
create table if not exists pin (
    token text primary key, host text not null, pid integer not null, started text not null,
    made real not null, keys text not null);
create table if not exists file (path text primary key, stamp text not null, digest text not null) without rowid;
"""
_COLUMNS = "key, kind, media, blob, digest, size, node, seconds, made, body"
# What a process of another machine (or container) left cannot be checked for life; it counts for this long.
_FOREIGN_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Entry:
    """One row. Its bytes are `body`, or the blob with the digest `blob`. size: bytes; made, used: Unix times."""

    key: str
    kind: Kind
    media: str
    blob: str | None
    digest: str
    size: int
    node: str = ""
    seconds: float = 0.0
    made: float = 0.0
    body: bytes | None = None

    def damage(self) -> str:
        """Why the row cannot be used, or an empty string."""
        return "" if self.digest == self.expected_digest() else "the digest of its row is wrong"

    def sealed(self) -> Entry:
        """The same row with the digest that it should have."""
        return replace(self, digest=self.expected_digest())

    def expected_digest(self) -> str:
        """Digest over what a reader relies on, so that bytes cannot turn up under another's key."""
        head = f"{self.key}\0{self.kind}\0{self.media}\0{self.blob or ''}\0".encode()
        return hashlib.sha256(head + (self.body or b"")).hexdigest()


class Index:
    """The database file in a store's folder. Every method may raise StoreError."""

    def __init__(self, folder: Path, on_replaced: Callable[[Path, str], None]) -> None:
        self.folder = folder
        self.path = folder / "index.sqlite"
        self._on_replaced = on_replaced
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0

    # --- connections ---

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        with self._translated():
            try:
                self._connection = self._connect()
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise
                self._replace(str(error))
                self._connection = self._connect()
        self._pid = os.getpid()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        new = not self.path.exists()
        connection = sqlite3.connect(
            self.path, timeout=60.0, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            if new:
                os.chmod(self.path, 0o600)
                connection.execute("pragma auto_vacuum = incremental")
            _use_wal(connection)
            connection.execute("pragma synchronous = normal")
            connection.execute("pragma journal_size_limit = 16777216")
            self._check_version(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_version(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("pragma user_version").fetchone()
        if version == _VERSION:
            return
        if version != 0:
            raise StoreError(
                f"the store {self.folder} was written by another version of Mezzotint (format {version}, this one "
                f"uses {_VERSION}): remove that folder, or set MEZZOTINT_CACHE to another"
            )
        connection.execute("begin immediate")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"pragma user_version = {_VERSION}")
        connection.execute("commit")

    def _replace(self, reason: str) -> None:
        """Set a database aside that cannot be read; a new one takes its place. What it named becomes misses."""
        with contextlib.suppress(Exception):
            if self._connection is not None:
                self._connection.close()
        self._connection = None
        aside = self.folder / "quarantine" / f"index-{secrets.token_hex(4)}.sqlite"
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        self._on_replaced(aside, f"the index was damaged: {reason}")

    def close(self) -> None:
        """Close this process's connection; the next use opens another."""
        with self.lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    # --- running statements ---

    @contextlib.contextmanager
    def _translated(self, wanted: int = 0) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            free = shutil.disk_usage(self.folder).free
            raise StoreError(
                f"cannot use the index of the store {self.folder} "
                f"({wanted} bytes to write, {free} bytes free): {error}"
            ) from error

    @contextlib.contextmanager
    def transaction(self, wanted: int = 0) -> Iterator[sqlite3.Connection]:
        """An immediate transaction: no other process changes the store meanwhile. wanted: bytes, for messages."""
        with self.lock, self._translated(wanted):
            connection = self._healthy()
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise

    def _healthy(self) -> sqlite3.Connection:
        connection = self._open()
        try:
            connection.execute("select count(*) from pin").fetchone()
        except sqlite3.DatabaseError as error:
            if not _is_corrupt(error):
                raise
            self._replace(str(error))
            connection = self._open()
        return connection

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """The rows that a query gives; a damaged database gives none and is replaced."""
        with self.lock, self._translated():
            connection = self._open()
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise
                self._replace(str(error))
                self._open()
                return []

    # --- entries ---

    def find(self, key: str, kind: Kind) -> Entry | None:
        """The row of a key."""
        found = self.rows(f"select {_COLUMNS} from entry where key = ? and kind = ?", key, kind)
        return Entry(*found[0]) if found else None

    def present(self, keys: Iterable[str]) -> set[str]:
        """Which of the keys have a value or bytes, in one query."""
        sql = (
            "select distinct key from entry "
            "where key in (select value from json_each(?)) and kind in ('value', 'bytes')"
        )
        return {row[0] for row in self.rows(sql, json.dumps(list(keys)))}

    def entries(self) -> list[Entry]:
        """All rows without their bodies, the least recently used first."""
        sql = (
            "select e.key, e.kind, media, blob, digest, size, node, seconds, made from entry e "
            "left join used u on u.key = e.key and u.kind = e.kind order by max(made, coalesce(at, 0)), e.key"
        )
        return [Entry(*row) for row in self.rows(sql)]

    def last_uses(self) -> dict[tuple[str, str], float]:
        """When entries were last read; those never read are absent."""
        return {(key, kind): at for key, kind, at in self.rows("select key, kind, at from used")}

    def size(self) -> int:
        """Bytes of all entries, each blob once."""
        sql = (
            "select (select coalesce(sum(size), 0) from entry where blob is null) + (select coalesce(sum(s), 0) "
            "from (select max(size) s from entry where blob is not null group by blob))"
        )
        found = self.rows(sql)
        return int(found[0][0]) if found else 0

    # --- changes, inside a transaction ---

    def write(
        self,
        connection: sqlite3.Connection,
        entries: Iterable[Entry],
        used: Mapping[tuple[str, Kind], float],
        files: Mapping[str, tuple[str, str]],
    ) -> None:
        """Insert or replace entries, last uses, and digests of files."""
        connection.executemany(
            "insert or replace into entry values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (e.key, e.kind, e.media, e.blob, e.digest, e.size, e.node, e.seconds, e.made, e.body)
                for e in entries
            ],
        )
        connection.executemany(
            "insert or replace into used values (?, ?, ?)", [(key, kind, at) for (key, kind), at in used.items()]
        )
        connection.executemany(
            "insert or replace into file values (?, ?, ?)", [(path, *known) for path, known in files.items()]
        )

    def delete(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> set[str]:
        """Delete entries; gives the blobs that they named."""
        names = [(e.key, e.kind) for e in entries]
        connection.executemany("delete from entry where key = ? and kind = ?", names)
        connection.executemany("delete from used where key = ? and kind = ?", names)
        return {e.blob for e in entries if e.blob is not None}

    def blobs_of(self, connection: sqlite3.Connection, entries: Iterable[Entry]) -> set[str]:
        """The blobs that the keys of these entries name now."""
        sql = "select blob from entry where blob is not null and key in (select value from json_each(?))"
        keys = json.dumps([e.key for e in entries])
        return {row[0] for row in connection.execute(sql, (keys,))}

    def unused(self, connection: sqlite3.Connection, digests: set[str]) -> set[str]:
        """Which of the blobs no entry names."""
        sql = "select distinct blob from entry where blob in (select value from json_each(?))"
        return digests - {row[0] for row in connection.execute(sql, (json.dumps(list(digests)),))}

    def sharers(self, connection: sqlite3.Connection) -> dict[str, int]:
        """How many entries name each blob."""
        return dict(connection.execute("select blob, count(*) from entry where blob is not null group by blob"))

    def shrink(self) -> None:
        """Give freed pages back to the file system, as far as other processes allow it now."""
        with self.lock, self._translated():
            connection = self._open()
            # As a script: a single statement would be stepped once, and free one page.
            connection.executescript("pragma incremental_vacuum; pragma wal_checkpoint(truncate);")

    # --- pins ---

    def add_pin(self, keys: Iterable[str]) -> str:
        """Keep keys from eviction for as long as this process lives or until `drop_pin`."""
        token, pid = secrets.token_hex(16), os.getpid()
        row = (token, socket.gethostname(), pid, process_start(pid), time.time(), json.dumps(list(keys)))
        with self.transaction() as connection:
            connection.execute("insert into pin values (?, ?, ?, ?, ?, ?)", row)
        return token

    def drop_pin(self, token: str) -> None:
        """Undo `add_pin`."""
        with self.transaction() as connection:
            connection.execute("delete from pin where token = ?", (token,))

    def pinned(self, connection: sqlite3.Connection) -> set[str]:
        """The keys that live processes have pinned; pins of dead ones are removed."""
        keys: set[str] = set()
        for token, host, pid, started, made, pinned in connection.execute("select * from pin").fetchall():
            if is_alive(host, pid, started, made):
                keys.update(json.loads(pinned))
            else:
                connection.execute("delete from pin where token = ?", (token,))
        return keys


def _is_corrupt(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _use_wal(connection: sqlite3.Connection) -> None:
    # The switch needs the file alone and does not wait for it, unlike everything else.
    for attempt in range(200):
        try:
            if connection.execute("pragma journal_mode").fetchone()[0] != "wal":
                connection.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or attempt == 199:
                raise
            time.sleep(0.02)


def process_start(pid: int) -> str:
    """When a process started, in the system's own words; empty if it is dead or that cannot be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def is_alive(host: str, pid: int, started: str, made: float) -> bool:
    """Whether the process that left a mark at `made` still runs; another machine's is believed to for a day."""
    if host != socket.gethostname():
        return time.time() - made < _FOREIGN_SECONDS
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process_start(pid) == started
