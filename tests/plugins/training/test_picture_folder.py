"""A folder of pictures as a data set: what it holds, and every way in which a folder can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mezzotint import UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_training.picture_folder import pictures


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def flat(value, height=8, width=8):
    return np.full((height, width, 3), value)


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(["a.png", "b.png", "deep/c.png"]):
        save(tmp_path / name, flat(10 + index))
    return tmp_path


def opened(folder, size=8):
    ctx = fake_context()
    return ctx.open_dataset(pictures(ctx, folder, size=size))


def items(reader):
    return [(int(reader[i]["image"][0, 0, 0]), reader[i]["caption"]) for i in range(len(reader))]


def test_pictures_are_sorted_by_path_with_empty_captions(folder):
    save(folder / ".hidden.png", flat(99))
    (folder / "notes.md").write_text("not a picture")
    reader = opened(folder)
    assert items(reader) == [(10, ""), (11, ""), (12, "")]
    assert reader[0]["image"].shape == (8, 8, 3) and reader[0]["image"].dtype == np.uint8


def test_pictures_of_the_right_size_keep_their_bytes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
    save(tmp_path / "a.png", pixels)
    assert np.array_equal(opened(tmp_path)[0]["image"], pixels)


def test_the_middle_square_is_taken_before_scaling(tmp_path):
    wide = np.concatenate([flat(0, 16, 8), flat(200, 16, 16), flat(0, 16, 8)], axis=1)
    save(tmp_path / "wide.png", wide)
    assert np.array_equal(opened(tmp_path)[0]["image"], flat(200))


def test_captions_are_read_from_texts_beside(folder):
    for name in ("a", "b", "deep/c"):
        (folder / f"{name}.txt").write_text(f"one {name}\n", encoding="utf-8")
    assert [caption for _, caption in items(opened(folder))] == ["one a", "one b", "one deep/c"]


@pytest.mark.parametrize("kind", ["metadata.jsonl", "captions.csv"])
def test_captions_are_read_from_a_table(folder, kind):
    rows = [("deep/c.png", "third, last"), ("a.png", "première"), ("b.png", "second")]
    if kind.endswith("csv"):
        text = "file_name,text\n" + "".join(f'{name},"{caption}"\n' for name, caption in rows)
    else:
        text = "".join(json.dumps({"file_name": name, "caption": caption}) + "\n\n" for name, caption in rows)
    (folder / kind).write_text(text, encoding="utf-8")
    assert items(opened(folder)) == [(10, "première"), (11, "second"), (12, "third, last")]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no picture in .*\.png"):
        opened(tmp_path)


def test_a_file_is_no_folder(folder):
    with pytest.raises(UserError, match=r"a\.png is not a folder"):
        opened(folder / "a.png")


@pytest.mark.parametrize("content", [b"", b"GIF89a no more", None])
def test_an_unreadable_picture_is_named(folder, content):
    whole = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(whole[:40] if content is None else content)
    with pytest.raises(UserError, match=r"'b\.png' cannot be read"):
        opened(folder)


def test_one_caption_too_few_is_named(folder):
    (folder / "a.txt").write_text("one")
    (folder / "deep/c.txt").write_text("three")
    with pytest.raises(UserError, match=r"3 pictures, 2 captions: 'b\.png' has none in a \.txt"):
        opened(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"file_name": "a.png", "caption": "x"}',
            r"3 pictures, 1 captions: 'b\.png' has none in captions\.jsonl",
        ),
        ('{"file_name": "d.png", "caption": "x"}', r"names 'd\.png', which is no picture"),
        ('{"file_name": "a.png", "caption"', r"captions\.jsonl, line 1: no JSON"),
        ("[1]", r"line 1: wanted an object"),
        ('{"file_name": "a.png"}', r"line 1: wanted file_name and caption, got file_name"),
        (
            '{"file": "a.png", "text": "x"}\n{"file": "a.png", "text": "y"}',
            r"line 2: 'a\.png' has a caption already",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(folder, text, message):
    (folder / "captions.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        opened(folder)


def test_two_tables_are_refused(folder):
    (folder / "captions.jsonl").write_text("")
    (folder / "metadata.csv").write_text("")
    with pytest.raises(UserError, match="two tables"):
        opened(folder)


def test_too_much_for_one_value_is_refused_before_reading(folder, monkeypatch):
    monkeypatch.setattr("mezzotint_training.picture_folder.LARGEST", 100)
    with pytest.raises(UserError, match="smaller size"):
        opened(folder)


def test_it_survives_the_store(folder):
    from mezzotint.codec import LoadedTypes, decode, encode

    made = pictures(fake_context(), folder, size=8)
    encoded = encode(made)

    class Reader:
        def read(self, name):
            return encoded.tensors[name]

    back = decode(encoded.meta, Reader(), LoadedTypes())
    ctx = fake_context()
    assert items(ctx.open_dataset(back)) == items(ctx.open_dataset(made))


def test_the_node_keeps_what_every_node_promises(folder):
    check_node(pictures, folder=folder, size=8)
