"""The small world as training data: labels and boxes agree with the scene that is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from mezzotint import UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_smallworld.draw import masks
from mezzotint_smallworld.nodes import dataset, scene_of
from mezzotint_smallworld.scene import COLOURS, SHAPES


def opened(**settings):
    made = dataset(count=60, **settings)
    return fake_context().open_dataset(made), made.config


@pytest.mark.parametrize(("label", "names"), [("shape", SHAPES), ("colour", tuple(COLOURS))])
def test_a_label_is_the_first_things_shape_or_colour(label, names):
    reader, config = opened(label=label)
    assert reader.label_names == names
    for index in range(60):
        first = scene_of(config, index)[0].things[0]
        assert names[reader.label(index)] == getattr(first, label)
    assert reader[7]["label"] == reader.label(7)
    assert {reader.label(index) for index in range(60)} == set(range(8))


def test_without_labels_items_have_none():
    reader, _ = opened()
    assert reader.label_names == ()
    assert set(reader[0]) == {"image", "caption", "boxes"}
    with pytest.raises(UserError, match="has no labels"):
        reader.label(0)


def test_labels_of_what_has_no_name_are_refused():
    with pytest.raises(UserError, match=r"unnamed is 0\.1; leave unnamed out"):
        dataset(label="shape", unnamed=0.1)


def test_labels_leave_the_scenes_of_named_things_as_they_are():
    plain, _ = opened(unnamed=0.0)
    labelled, _ = opened(label="colour")
    for index in range(10):
        assert np.array_equal(plain[index]["image"], labelled[index]["image"])
        assert plain[index]["caption"] == labelled[index]["caption"]


def test_boxes_hold_the_drawn_pixels_and_touch_them():
    reader, config = opened(unnamed=0.5)
    for index in range(20):
        scene = scene_of(config, index)[0]
        found = reader[index]["boxes"]
        assert found == reader.boxes(index) and len(found) == len(scene.things)
        for entry, mask in zip(found, masks(scene), strict=True):
            rows, columns = np.nonzero(mask.max(1))[0], np.nonzero(mask.max(0))[0]
            drawn = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert np.abs(np.array(entry["box"]) * 64 - drawn).max() <= 1.0
            assert all(0 <= side <= 1 for side in entry["box"])


def test_boxes_name_what_has_a_name():
    reader, config = opened(unnamed=0.5)
    words = {entry["what"] for index in range(60) for entry in reader.boxes(index)}
    for index in range(60):
        for thing, entry in zip(scene_of(config, index)[0].things, reader.boxes(index), strict=True):
            colour = f"{thing.colour} " if thing.colour in COLOURS else ""
            assert entry["what"] == colour + (thing.shape if thing.shape in SHAPES else "shape")
    assert any(what.endswith("shape") for what in words)


def test_the_node_keeps_what_every_node_promises():
    check_node(dataset, count=4, label="shape")
