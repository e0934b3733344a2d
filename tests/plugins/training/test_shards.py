"""Tar shards as a data set: what they hold, and every way in which an archive can be wrong."""

from __future__ import annotations

import gzip
import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from mezzotint import Source, UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_training import Pictures
from mezzotint_training.shards import shards
from mezzotint_training.tar_index import samples_of


def png(value, size=8):
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def tar(path, members):
    """A tar file of (name, bytes or a TarInfo) pairs."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def special(name, kind, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return name, member


def source(path):
    return Source(uri=str(path), path=str(path), fingerprint="0")


def opened(path, size=8):
    ctx = fake_context()
    return ctx.open_dataset(shards(ctx, source(path), size=size))


def items(reader):
    return [(int(reader[i]["image"][0, 0, 0]), reader[i]["caption"]) for i in range(len(reader))]


@pytest.fixture
def folder(tmp_path):
    tar(tmp_path / "b.tar", [("3.png", png(30)), ("3.json", b'{"caption": " third ", "id": 3}')])
    tar(
        tmp_path / "a.tar",
        [("x/", special("x", tarfile.DIRTYPE)[1]), ("x/1.txt", b"first\n"), ("x/1.png", png(10)),
         ("x/1.cls", b"7"), ("x/2.seg.png", b"?"), ("x/2.PNG", png(20, 16)), ("x/2.txt", "zweitens ü".encode())],
    )  # fmt: skip
    (tmp_path / "readme.md").write_text("no archive")
    return tmp_path


def test_samples_are_pictures_with_what_shares_their_name(folder):
    reader = opened(folder)
    assert items(reader) == [(10, "first"), (20, "zweitens ü"), (30, "third")]
    assert reader[1]["image"].shape == (8, 8, 3) and reader[1]["image"].dtype == np.uint8
    assert items(opened(folder / "b.tar")) == [(30, "third")]


def test_without_captions_all_are_empty(tmp_path):
    assert items(opened(tar(tmp_path / "a.tar", [("1.png", png(1)), ("2.png", png(2))]))) == [(1, ""), (2, "")]


def test_a_text_goes_before_a_json(tmp_path):
    both = [("1.json", b'{"text": "no"}'), ("1.png", png(1)), ("1.txt", b"yes")]
    assert items(opened(tar(tmp_path / "a.tar", both))) == [(1, "yes")]
    assert items(opened(tar(tmp_path / "b.tar", list(reversed(both))))) == [(1, "yes")]


def test_items_are_read_when_they_are_asked_for(folder):
    reader = opened(folder)
    (folder / "b.tar").write_bytes((folder / "b.tar").read_bytes() + bytes(512))
    assert reader.caption(0) == "first"
    with pytest.raises(UserError, match=r"b\.tar: changed since it was indexed"):
        reader[2]
    (folder / "a.tar").unlink()
    with pytest.raises(UserError, match=r"a\.tar: cannot be read any more"):
        reader[0]


def test_trainers_get_their_batches(tmp_path):
    reader = opened(tar(tmp_path / "a.tar", [(f"{i}.png", png(i)) for i in range(12)]))
    batches = torch.cat([Pictures(reader, 8, 4, 0).batch(step, 0) for step in range(3)])
    assert set(batches[:, 0, 0, 0].tolist()) <= set(range(11))  # the last tenth is held out
    assert batches.shape == (12, 3, 8, 8)


def test_a_folder_without_archives_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no \.tar file"):
        opened(tmp_path)


def test_an_archive_without_pictures_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no picture in a\.tar"):
        opened(tar(tmp_path / "a.tar", [("1.bin", b"?")]))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../1.png", png(1))], r"'\.\./1\.png' leads out of the archive"),
        ([("/etc/1.png", png(1))], r"leads out of the archive"),
        ([("a\\..\\1.png", png(1))], r"leads out of the archive"),
        ([special("1.png", tarfile.SYMTYPE, "/etc/passwd")], r"'1\.png' is a link or another special file"),
        ([special("1.png", tarfile.LNKTYPE, "2.png")], r"is a link or another special file"),
        ([special("1.png", tarfile.FIFOTYPE)], r"is a link or another special file"),
        ([("1.png", png(1)), ("1.jpg", png(1))], r"'1' has two pictures"),
        ([("1.png", png(1)), ("1.txt", b"a"), ("1.txt", b"b")], r"'1' has two captions"),
        ([("1.txt", b"a")], r"'1' has a caption and no picture"),
        ([("1.png", png(1)), ("1.txt", b"a"), ("2.png", png(2))], r"2 pictures, 1 captions: '2' in a\.tar has"),
        ([("1.png", b"GIF89a no more")], r"a\.tar, '1'"),
        ([("1.png", b"words alone")], r"a\.tar, '1': not a picture"),
        ([("1.png", b"")], r"a\.tar, '1': not a picture"),
    ],
)  # fmt: skip
def test_an_archive_that_is_wrong_is_refused_with_the_place(tmp_path, members, message):
    with pytest.raises(UserError, match=message):
        opened(tar(tmp_path / "a.tar", members))


@pytest.mark.parametrize("left", [0, 100, 512, 700, 1024 + 100])
def test_an_archive_that_is_cut_short_is_refused(folder, left):
    whole = (folder / "a.tar").read_bytes()
    (folder / "a.tar").write_bytes(whole[:left])
    with pytest.raises(UserError, match=r"a\.tar: (cut short|no tar file)"):
        opened(folder)


def test_an_archive_without_its_end_is_refused(tmp_path):
    file = tar(tmp_path / "a.tar", [("1.png", png(1)), ("2.png", png(2))])
    with tarfile.open(file) as archive:
        end = archive.getmember("2.png").offset
    file.write_bytes(file.read_bytes()[:end])
    with pytest.raises(UserError, match="cut short at byte"):
        samples_of(file)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    file = tar(tmp_path / "a.tar", [("1.png", png(1)), ("2.png", png(2))])
    with tarfile.open(file) as archive:
        second = archive.getmember("2.png").offset
    content = bytearray(file.read_bytes())
    content[second + 150] ^= 1  # its check sum
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged"):
        samples_of(file)


def test_sizes_in_headers_are_not_believed(tmp_path):
    member = tarfile.TarInfo("1.png")
    member.size = 1 << 40
    (tmp_path / "a.tar").write_bytes(member.tobuf() + bytes(2048))
    with pytest.raises(UserError, match=r"cut short in '1\.png'"):
        opened(tmp_path)
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(UserError, match=r"a header of \d+ bytes"):
        opened(tmp_path)


def test_too_large_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mezzotint_training.tar_index.LARGEST_PICTURE", 10)
    with pytest.raises(UserError, match=r"'1\.png' has \d+ bytes; at most 10"):
        opened(tar(tmp_path / "a.tar", [("1.png", png(1))]))


def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("mezzotint_training.shards.MAX_PIXELS", 63)
    with pytest.raises(UserError, match="8x8 is over max_pixels"):
        opened(tar(tmp_path / "a.tar", [("1.png", png(1))]))


def test_a_compressed_archive_is_refused_with_the_remedy(tmp_path):
    whole = tar(tmp_path / "whole", [("1.png", png(1))]).read_bytes()
    (tmp_path / "a.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(UserError, match="gunzip it once"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"{", "its json is damaged"), (b"\xff\xfe\xfd", "its json is damaged"), (b"[1]", "wanted an object with"),
     (b'{"caption": 3}', "wanted an object with caption or text"), (b"[" * 100_000, "is damaged")],
)  # fmt: skip
def test_a_damaged_caption_is_named(tmp_path, text, message):
    reader = opened(tar(tmp_path / "a.tar", [("1.png", png(1)), ("1.json", text)]))
    with pytest.raises(UserError, match=rf"a\.tar, sample 0: .*{message}"):
        reader.caption(0)


def test_a_picture_that_is_cut_short_is_named_when_it_is_read(tmp_path):
    noisy = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(noisy, "png")
    reader = opened(tar(tmp_path / "a.tar", [("1.png", noisy.getvalue()[:600])]))
    with pytest.raises(UserError, match=r"a\.tar, sample 0: damaged or cut short"):
        reader[0]


def test_it_survives_the_store(folder):
    from mezzotint.codec import LoadedTypes, decode, encode

    encoded = encode(shards(fake_context(), source(folder), size=8))

    class Reader:
        def read(self, name):
            return encoded.tensors[name]

    back = decode(encoded.meta, Reader(), LoadedTypes())
    assert items(fake_context().open_dataset(back)) == items(opened(folder))


def test_the_node_keeps_what_every_node_promises(folder):
    check_node(shards, source=source(folder), size=8)
