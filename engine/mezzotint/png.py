"""Text inside PNG files, read and written without an imaging library: a picture carries the graph that made it.

Reading trusts nothing: signature, lengths, checksums and unpacked sizes are bounded and checked. After the PNG
specification, third edition (W3C, 2025), chapters 5 and 11.3.3.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO

from mezzotint.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["add_text", "read_text"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_TEXT = 16 << 20
_MAX_CHUNKS = 100_000
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# Width, height, bit depth, colour type, compression, filter, interlace.
_HEADER_BYTES = 13


def read_text(path: str | os.PathLike[str], keyword: str) -> str | None:
    """The first text of a PNG file under `keyword` (tEXt, zTXt or iTXt), or None.

    Raises: UserError: not a PNG file, damaged, or made to exhaust memory (a text over 16 MiB, too many chunks).
    """
    try:
        with open(path, "rb") as file:
            for kind, data in _text_chunks(file, str(path)):
                text = _text(kind, data, keyword, str(path))
                if text is not None:
                    return text
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return None


def _text_chunks(file: BinaryIO, name: str) -> Iterator[tuple[bytes, bytes]]:
    """The text chunks up to the end of the picture; all others are skipped unread."""
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise UserError(f"{name}: not a PNG file")
    size = os.fstat(file.fileno()).st_size
    for number in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            raise UserError(f"{name}: the PNG file ends before its last chunk (IEND)")
        length, kind = struct.unpack(">I4s", head)
        if number == 0 and (kind, length) != (b"IHDR", _HEADER_BYTES):
            raise UserError(f"{name}: the PNG file does not begin with a header (IHDR)")
        if file.tell() + length + 4 > size:
            raise UserError(f"{name}: the PNG file is cut off inside a {kind!r} chunk of {length} bytes")
        if kind == b"IEND":
            return
        if kind in _TEXT_CHUNKS:
            yield kind, _checked(file, kind, length, name)
        else:
            file.seek(length + 4, os.SEEK_CUR)
    raise UserError(f"{name}: the PNG file has more than {_MAX_CHUNKS} chunks")


def _checked(file: BinaryIO, kind: bytes, length: int, name: str) -> bytes:
    if length > _MAX_TEXT:
        raise UserError(f"{name}: a text chunk of {length} bytes in the PNG file; at most {_MAX_TEXT} are read")
    data = file.read(length)
    (wanted,) = struct.unpack(">I", file.read(4))
    if zlib.crc32(data, zlib.crc32(kind)) != wanted:
        raise UserError(f"{name}: the checksum of a {kind.decode()} chunk in the PNG file is wrong")
    return data


def _text(kind: bytes, data: bytes, keyword: str, name: str) -> str | None:
    """The text of a chunk, if it is under `keyword`."""
    found, separator, rest = data.partition(b"\0")
    if found.decode("latin-1") != keyword:
        return None
    if not separator:
        raise UserError(f"{name}: a malformed {kind.decode()} chunk in the PNG file")
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"zTXt":
        return _inflated(rest[:1], rest[1:], name).decode("latin-1")
    packed, method, rest = rest[:1], rest[1:2], rest[2:]
    _language, first, rest = rest.partition(b"\0")
    _translated, second, text = rest.partition(b"\0")
    if packed not in (b"\0", b"\1") or not first or not second:
        raise UserError(f"{name}: a malformed iTXt chunk in the PNG file")
    try:
        return (_inflated(method, text, name) if packed == b"\1" else text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: the text {keyword!r} in the PNG file is not UTF-8: {error}") from error


def _inflated(method: bytes, data: bytes, name: str) -> bytes:
    if method != b"\0":
        raise UserError(f"{name}: a text in the PNG file is packed by an unknown method")
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, _MAX_TEXT)
    except zlib.error as error:
        raise UserError(f"{name}: a packed text in the PNG file is damaged: {error}") from error
    if unpacker.unconsumed_tail or (not unpacker.eof and len(text) >= _MAX_TEXT):
        raise UserError(f"{name}: a packed text in the PNG file is larger than {_MAX_TEXT} bytes")
    if not unpacker.eof:
        raise UserError(f"{name}: a packed text in the PNG file is cut off")
    return text


def add_text(png: bytes, keyword: str, text: str) -> bytes:
    """The PNG file `png` with a packed iTXt chunk after its header. The same arguments give the same bytes.

    keyword: 1 to 79 printable Latin-1 characters, no spaces at its ends. text: any, up to 16 MiB as UTF-8.

    Raises: UserError: `png` is no PNG file, or the keyword or the text is not as above.
    """
    end = len(_SIGNATURE) + 8 + _HEADER_BYTES + 4
    if len(png) < end or png[:8] != _SIGNATURE or png[8:16] != struct.pack(">I4s", _HEADER_BYTES, b"IHDR"):
        raise UserError("cannot add a text: the data is not a PNG file")
    data = text.encode("utf-8")
    if len(data) > _MAX_TEXT:
        raise UserError(f"cannot add a text of {len(data)} bytes to a PNG file; at most {_MAX_TEXT}")
    body = _keyword(keyword) + b"\0\1\0\0\0" + zlib.compress(data, 9)
    kind = b"iTXt"
    chunk = struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
    return png[:end] + chunk + png[end:]


def _keyword(keyword: str) -> bytes:
    try:
        name = keyword.encode("latin-1")
    except UnicodeEncodeError:
        name = b""
    printable = all(32 <= c <= 126 or c >= 161 for c in name)
    if not 1 <= len(name) <= 79 or not printable or keyword != keyword.strip() or "  " in keyword:
        raise UserError(f"{keyword!r} cannot name a text in a PNG file; wanted 1 to 79 Latin-1 characters")
    return name
