"""Where the samples of tar shards lie: members by offset, found by one walk over the headers. Nothing is unpacked.

A sample's members share a name up to its first dot (the WebDataset convention): 0001.jpg, 0001.txt. The archives
are a stranger's: every way in which they can be wrong ends in a clear error.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from mezzotint import UserError

__all__ = ["LARGEST_PICTURE", "LARGEST_TEXT", "Sample", "samples_of"]

PICTURES = frozenset({"png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "avif"})
TEXTS = ("txt", "json")
LARGEST_PICTURE = 1 << 26  # bytes
LARGEST_TEXT = 1 << 20  # bytes; also of a header
BLOCK = 512


@dataclass(slots=True)
class Sample:
    """One sample of a shard: (offset, size) in bytes of its picture and its caption, None where it has none."""

    key: str
    picture: tuple[int, int] | None = None
    text: tuple[int, int] | None = None
    text_kind: str = ""


class Bounded:
    """A file that refuses to read much at once: the size in a header is a stranger's."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST_TEXT:
            raise UserError(f"{self.name}: a header of {size} bytes; at most {LARGEST_TEXT} are read")
        return self.file.read(size)


def samples_of(shard: Path) -> list[Sample]:
    """The samples of one uncompressed tar file, in its order. Members that are no picture or text are passed over.

    Raises: UserError: no tar file, one that is compressed, damaged or cut short; a member that is a link, leads
    out of the archive, or is too large; a sample with two pictures, two captions, or a caption and no picture.
    """
    found: dict[str, Sample] = {}
    try:
        with shard.open("rb") as file:
            for member in _members(file, shard.name):
                _take(found, member, shard.name)
    except OSError as error:
        raise UserError(f"{shard.name}: cannot be read: {error.strerror or error}") from error
    for sample in found.values():
        if sample.picture is None:
            raise UserError(f"{shard.name}: {sample.key!r} has a caption and no picture")
    return list(found.values())


def _members(file: BinaryIO, name: str) -> Iterator[tarfile.TarInfo]:
    """The regular members, each checked."""
    if file.read(2) == b"\x1f\x8b":
        raise UserError(f"{name}: compressed; a compressed shard cannot be read from its middle: gunzip it once")
    end = file.seek(0, 2)
    file.seek(0)
    try:
        archive = tarfile.open(fileobj=Bounded(file, name), mode="r:")  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            archive.members = []  # or every header would stay in memory
            _check(member, name, end)
            if member.isreg():
                yield member
        file.seek(archive.offset)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise UserError(f"{name}: no tar file, or a damaged one: {error}") from error
    # tarfile takes whatever is no header for the end; the end itself is a block of zeros.
    last = file.read(BLOCK)
    if last != bytes(BLOCK):
        where = f"at byte {archive.offset}"
        raise UserError(f"{name}: cut short {where}" if len(last) < BLOCK else f"{name}: damaged {where}")


def _check(member: tarfile.TarInfo, name: str, end: int) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise UserError(f"{name}: the name {member.name!r} leads out of the archive")
    if member.isdir():
        return
    if not member.isreg() or member.issparse():
        raise UserError(f"{name}: {member.name!r} is a link or another special file; wanted plain files alone")
    if member.offset_data + member.size > end:
        raise UserError(
            f"{name}: cut short in {member.name!r}: {member.size} bytes, {end - member.offset_data} left"
        )


def _take(found: dict[str, Sample], member: tarfile.TarInfo, name: str) -> None:
    path = PurePosixPath(member.name)
    stem, _, kind = path.name.partition(".")
    kind = kind.lower()
    if not stem or (kind not in PICTURES and kind not in TEXTS):
        return
    bound = LARGEST_PICTURE if kind in PICTURES else LARGEST_TEXT
    if member.size > bound:
        raise UserError(f"{name}: {member.name!r} has {member.size} bytes; at most {bound} are read")
    key = str(path.parent / stem)
    sample = found.setdefault(key, Sample(key))
    place = (member.offset_data, member.size)
    if kind in PICTURES:
        if sample.picture is not None:
            raise UserError(f"{name}: {key!r} has two pictures")
        sample.picture = place
    elif sample.text is None:
        sample.text, sample.text_kind = place, kind
    elif {sample.text_kind, kind} == set(TEXTS):
        # Writers often put both; the text is the caption then.
        if kind == "txt":
            sample.text, sample.text_kind = place, kind
    else:
        raise UserError(f"{name}: {key!r} has two captions")
