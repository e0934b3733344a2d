"""Texts in PNG files: what is written is read, by others too, and hostile files are refused."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from mezzotint.errors import UserError
from mezzotint.png import add_text, read_text


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def picture(**texts: str) -> bytes:
    file, info = io.BytesIO(), PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text, zip=keyword.startswith("zip"))
    Image.new("RGB", (5, 4), (1, 2, 3)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


PLAIN = picture()
HEADER, BODY = PLAIN[:33], PLAIN[33:]


def with_chunk(kind: bytes, data: bytes) -> bytes:
    return HEADER + chunk(kind, data) + BODY


def read(tmp_path: Path, data: bytes, keyword: str = "graph") -> str | None:
    (tmp_path / "p.png").write_bytes(data)
    return read_text(tmp_path / "p.png", keyword)


@pytest.mark.parametrize("text", ["", '{"a": 1}', "é 漢 𝄞 \x00\n", "x" * 1_000_000])
def test_a_text_that_was_added_is_read_back(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, add_text(PLAIN, "graph", text)) == text


def test_a_text_that_was_added_is_read_by_pillow_and_the_pixels_stay() -> None:
    image = Image.open(io.BytesIO(add_text(picture(other="o"), "graph", "é漢")))
    image.load()
    assert image.text == {"graph": "é漢", "other": "o"}
    assert image.getpixel((0, 0)) == (1, 2, 3)


def test_adding_the_same_text_gives_the_same_bytes() -> None:
    assert add_text(PLAIN, "graph", "x" * 1000) == add_text(PLAIN, "graph", "x" * 1000)


def test_texts_of_every_kind_that_pillow_writes_are_read(tmp_path: Path) -> None:
    data = picture(plain="latin é", zipped="y" * 5000, international="漢")
    assert read(tmp_path, data, "plain") == "latin é"
    assert read(tmp_path, data, "zipped") == "y" * 5000
    assert read(tmp_path, data, "international") == "漢"
    assert read(tmp_path, data, "absent") is None


def test_a_text_after_the_pixels_is_found_and_one_after_the_end_is_not(tmp_path: Path) -> None:
    end = chunk(b"IEND", b"")
    text = chunk(b"tEXt", b"graph\0late")
    assert read(tmp_path, PLAIN.removesuffix(end) + text + end) == "late"
    assert read(tmp_path, PLAIN + text) is None


BOMB = zlib.compress(bytes(200 << 20), 9)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PNG file"),
        (b"GIF89a" + b"x" * 100, "not a PNG file"),
        (PLAIN[:8], "ends before its last chunk"),
        (PLAIN[:20], "cut off"),
        (PLAIN[:-20], "cut off|ends before"),
        (PLAIN[:8] + BODY, "does not begin with a header"),
        (HEADER + b"\xff\xff\xff\xfftEXt" + b"x" * 100, "cut off inside a b'tEXt' chunk of 4294967295 bytes"),
        (with_chunk(b"tEXt", b"graph\0abc").replace(b"abc", b"abd"), "checksum of a tEXt chunk"),
        (with_chunk(b"tEXt", b"graph"), "malformed tEXt"),
        (with_chunk(b"iTXt", b"graph\0\0\0"), "malformed iTXt"),
        (with_chunk(b"iTXt", b"graph\0\2\0\0\0x"), "malformed iTXt"),
        (with_chunk(b"iTXt", b"graph\0\0\0\0\0\xff"), "not UTF-8"),
        (with_chunk(b"iTXt", b"graph\0\1\1\0\0x"), "unknown method"),
        (with_chunk(b"zTXt", b"graph\0\0nonsense"), "damaged"),
        (with_chunk(b"zTXt", b"graph\0\0" + zlib.compress(b"x" * 1000)[:-8]), "cut off"),
        (with_chunk(b"zTXt", b"graph\0\0" + BOMB), "larger than 16777216 bytes"),
        (with_chunk(b"iTXt", b"graph\0\1\0\0\0" + BOMB), "larger than 16777216 bytes"),
        (with_chunk(b"tEXt", b"graph\0" + bytes(17 << 20)), "text chunk of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_and_damaged_files_are_refused_soon_and_in_little_memory(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "p.png").write_bytes(data)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(UserError, match=rf"p\.png: .*({message})"):
            read_text(tmp_path / "p.png", "graph")
        assert time.process_time() - began < 5
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_file_of_countless_chunks_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than 100000 chunks"):
        read(tmp_path, HEADER + chunk(b"aaAa", b"") * 100_001 + BODY)


def test_every_cut_of_a_file_is_refused_or_read_whole(tmp_path: Path) -> None:
    whole = add_text(PLAIN, "graph", "text")
    for length in range(len(whole)):
        try:
            assert read(tmp_path, whole[:length]) == "text"
        except UserError:
            continue


def test_a_file_that_cannot_be_read_is_a_user_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(UserError, match="cannot read"):
            read_text(path, "graph")


@pytest.mark.parametrize("keyword", ["", " a", "a  b", "é漢", "x" * 80, "a\0b", "a\nb"])
def test_keywords_outside_the_specification_are_refused(keyword: str) -> None:
    with pytest.raises(UserError, match="cannot name a text"):
        add_text(PLAIN, keyword, "x")


def test_what_is_no_png_or_too_long_takes_no_text() -> None:
    with pytest.raises(UserError, match="not a PNG file"):
        add_text(b"GIF89a" + bytes(100), "graph", "x")
    with pytest.raises(UserError, match="at most 16777216"):
        add_text(PLAIN, "graph", "x" * (17 << 20))
