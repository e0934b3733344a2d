"""Files that exist whole or not at all: written beside their final name, synced, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_atomic", "sync_folder", "write_bytes"]


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` last through a power cut, where the system can (POSIX)."""
    with contextlib.suppress(PermissionError):  # Windows cannot open folders, and needs no such call
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new binary file that takes the name `path` when the block ends well, replacing what had it.

    On an error nothing remains; a kill can leave a hidden `.*.tmp` beside `path`, never a part under its name.
    The file's mode follows the umask. A symbolic link at `path` is replaced, not followed.

    Raises: OSError: as the system says (no such folder, no permission, no space).
    """
    final = Path(path)
    temporary = final.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(final.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` as the whole file `path`, or change nothing. Raises: OSError."""
    with open_atomic(path) as file:
        file.write(data)
