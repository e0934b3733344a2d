"""The data sets that come along."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import mezzotint_training
from mezzotint import UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_training import Pictures
from mezzotint_training.bundled_pictures import TileReader, digits, emoji

DATA = Path(mezzotint_training.__file__).parent / "data"


def opened(made):
    return fake_context().open_dataset(made)


def test_there_are_as_many_digits_of_each_kind_as_the_source_says():
    reader = opened(digits(size=8))
    labels = [reader[i]["label"] for i in range(len(reader))]
    assert Counter(labels) == dict(enumerate([178, 182, 177, 183, 181, 182, 181, 179, 174, 180]))
    assert reader.label_names[7] == "seven"
    assert reader.caption(labels.index(7)) == "a handwritten seven"


def test_the_first_digit_is_the_sources():
    # Its third row in the source is 0 3 15 2 0 11 8 0, of 16 levels.
    first = opened(digits(size=8))[0]
    assert first["label"] == 0
    assert first["image"][2, :, 0].tolist() == [round(v * 255 / 16) for v in (0, 3, 15, 2, 0, 11, 8, 0)]
    assert (first["image"] == first["image"][..., :1]).all()


def test_emoji_have_their_names_and_groups():
    reader = opened(emoji(size=16))
    names = [reader.caption(i) for i in range(len(reader))]
    assert len(set(names)) == len(names) == 1026
    apple = reader[names.index("red apple")]
    assert reader.label_names[apple["label"]] == "food"
    red, green, blue = apple["image"][8:12, 4:12].reshape(-1, 3).mean(0)
    assert red > 150 > max(green, blue)
    assert apple["image"].shape == (16, 16, 3)


def test_groups_are_taken_alone_with_labels_of_their_own():
    made = emoji(groups=["places", "food"], size=8)
    reader = opened(made)
    assert reader.label_names == ("food", "places")
    assert made.length == len(reader) < 1026
    assert {reader[i]["label"] for i in range(len(reader))} == {0, 1}


def test_trainers_get_their_batches():
    for made in (digits(size=8), emoji(size=8)):
        batch = Pictures(opened(made), 8, 4, 0).batch(0, 0)
        assert batch.shape == (4, 3, 8, 8)
        assert len(batch.unique()) > 4


def test_the_background_is_what_is_asked_for():
    corner = opened(emoji(size=64, background=[10, 20, 30]))[0]["image"][0, 0]
    assert np.array_equal(corner, [10, 20, 30])


def test_the_sheets_come_with_their_attribution_and_are_small():
    assert "CC-BY 4.0" in (DATA / "ATTRIBUTION.md").read_text("utf-8")
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 3_000_000


def test_an_unknown_sheet_is_refused():
    made = digits()
    with pytest.raises(UserError, match="no bundled pictures 'x'; there are digits, emoji"):
        TileReader(made.replace(config={**made.config, "sheet": "x"}))


def test_the_nodes_keep_what_every_node_promises():
    check_node(digits, size=8)
    check_node(emoji, size=8, groups=["food"])
