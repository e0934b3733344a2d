"""image.load: kinds of pictures, and files that are wrong in every way."""

from __future__ import annotations

import struct
import zlib

import numpy
import pytest
import torch
from PIL import Image as Pillow

from mezzotint import UserError
from mezzotint_image.reading import load


@pytest.fixture
def saved(tmp_path):
    def save(picture: Pillow.Image, name: str = "picture.png", **options):
        picture.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def _picture(mode: str) -> Pillow.Image:
    rgba = numpy.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=numpy.uint8)
    return Pillow.fromarray(rgba).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_pixels_are_read_exactly_and_without_alpha_nothing_is_masked(saved, mode):
    picture = _picture("RGB").convert(mode)
    image, mask = load(saved(picture))
    wanted = torch.from_numpy(numpy.array(picture.convert("RGB"))).float() / 255
    assert torch.equal(image.data[0], wanted) and image.data.dtype == torch.float32
    assert mask.data.shape == (1, 5, 7) and mask.data.max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_the_mask_is_one_minus_alpha_and_colours_under_it_stay(saved, mode):
    picture = _picture(mode)
    image, mask = load(saved(picture))
    wanted = torch.from_numpy(numpy.array(picture.convert("RGBA"))).float() / 255
    assert torch.equal(image.data[0], wanted[..., :3])
    assert torch.equal(mask.data[0], 1 - wanted[..., 3])
    assert torch.equal(load(saved(picture), channels=4).image.data[0], wanted)


def test_transparency_of_a_palette_becomes_a_mask(saved):
    palette = _picture("P")
    path = saved(palette, transparency=palette.getpixel((0, 0)))
    assert load(path).mask.data[0, 0, 0] == 1


def test_sixteen_bits_of_grey_are_kept(saved):
    values = numpy.array([[0, 1, 256], [32768, 65534, 65535]], dtype=numpy.uint16)
    image = load(saved(Pillow.fromarray(values)), channels=1).image
    assert torch.equal(image.data[0, ..., 0], torch.from_numpy(values.astype(numpy.float32)) / 65535)


def test_a_photo_is_turned_upright(saved):
    picture = Pillow.fromarray(numpy.array([[[255, 0, 0], [0, 0, 255]]], dtype=numpy.uint8))
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image = load(saved(picture, exif=exif)).image
    assert image.data.shape == (1, 2, 1, 3) and image.data[0, 0, 0].tolist() == [1, 0, 0]


def test_one_channel_is_the_luminance(saved):
    grey = load(saved(Pillow.new("RGB", (2, 2), (255, 0, 0))), channels=1).image.data
    assert grey.shape == (1, 2, 2, 1) and grey[0, 0, 0, 0] == pytest.approx(0.299)


def test_a_picture_over_the_bound_is_refused_before_it_is_decoded(saved):
    with pytest.raises(UserError, match=r"picture\.png: 7x5 is over max_pixels, 34"):
        load(saved(_picture("RGB")), max_pixels=34)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(b"")), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("side", [9000, 10_000, 50_000])
def test_a_decompression_bomb_is_refused(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(_bomb(side))
    with pytest.raises(UserError, match=r"bomb\.png"):
        load(tmp_path / "bomb.png")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe\n", b"hello", _bomb(8)])
def test_what_is_no_picture_ends_in_a_clear_error(tmp_path, content):
    (tmp_path / "file.png").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.png: (not a picture|damaged|cannot be opened)"):
        load(tmp_path / "file.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_a_picture_cut_short_anywhere_ends_in_a_clear_error(saved, tmp_path, suffix):
    big = Pillow.fromarray(numpy.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=numpy.uint8))
    whole = saved(big, f"whole.{suffix}").read_bytes()
    short = tmp_path / f"short.{suffix}"
    for end in range(0, len(whole) * 9 // 10, max(1, len(whole) // 16)):
        short.write_bytes(whole[:end])
        try:
            load(short)
        except UserError as error:
            assert "short" in str(error)
        else:
            pytest.fail(f"{end} of {len(whole)} bytes were taken for a picture")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.png: cannot be opened"):
        load(tmp_path / "none.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png: cannot be opened"):
        load(tmp_path / "folder.png")
