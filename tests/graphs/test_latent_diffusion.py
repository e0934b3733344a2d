"""graphs/text_to_image/latent_diffusion.json on the bundled weights: what each condition promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mezzotint.api import load
from mezzotint.errors import NodeError
from mezzotint_smallworld.reader import Reader

GRAPH = Path(__file__).resolve().parents[2] / "graphs" / "text_to_image" / "latent_diffusion.json"
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "diamond", "cross")
GREEN, BLACK = "green heart", "black ring"
PAIR = [{"what": GREEN, "box": [0.1, 0.5, 0.4, 0.9]}, {"what": BLACK, "box": [0.55, 0.1, 0.9, 0.45]}]


@pytest.fixture
def run(runtime):
    def run(**inputs):
        return load(GRAPH, runtime=runtime).run(**inputs).outputs

    return run


def test_the_order_of_boxes_plays_no_part_and_their_places_do(run):
    small = {"condition": "layout", "steps": 1, "batch": 1, "guidance": 1}
    first = run(boxes=PAIR, **small)["image"].data
    assert torch.equal(run(boxes=PAIR[::-1], **small)["image"].data, first)
    moved = [PAIR[0], {**PAIR[1], "box": [0.55, 0.5, 0.9, 0.85]}]
    assert not torch.allclose(run(boxes=moved, **small)["image"].data, first, atol=1e-3)


def test_both_first_stages_decode_the_same_latents(run):
    small = {"condition": "text", "steps": 2, "batch": 1}
    kl, vq = (run(first_stage=kind, **small)["image"].data for kind in ("kl", "vq"))
    assert not torch.equal(kl, vq)
    assert (kl - vq).square().mean() < kl.var() / 4


def test_a_wrong_box_is_refused_with_the_place_where_it_stands(runtime):
    boxes = [{"what": "red circle", "box": [0.9, 0.1, 0.1, 0.5]}]
    with pytest.raises(NodeError, match=r"/boxes/0/box/2: wanted right above left 0\.9, got 0\.1"):
        load(GRAPH, runtime=runtime).run(condition="layout", steps=1, batch=1, boxes=boxes)


def layouts(things, count):
    """Boxes of scenes that no bundled model was trained on."""
    config = {"seed": 50_000, "things": things, "split": "test", "unnamed": 0.0}
    reader = Reader(config, count)
    return [reader.boxes(item) for item in range(count)]


@pytest.mark.slow
def test_a_single_object_is_what_was_asked_for_and_lies_in_its_box(run):
    reports = [
        run(condition="layout", boxes=boxes, steps=12, batch=1, seed=100 + i)["report"].data
        for i, boxes in enumerate(layouts(1, 12))
    ]
    assert sum(report["score"]["placed"] for report in reports) / len(reports) > 70


@pytest.mark.slow
def test_two_boxes_are_both_filled(run):
    filled = []
    for i, boxes in enumerate(layouts(2, 12)):
        (row,) = run(condition="layout", boxes=boxes, steps=12, batch=1, seed=100 + i)["report"].data["pictures"]
        filled += [any(_within(thing["centre"], box["box"]) for thing in row["seen"]) for box in boxes]
    assert sum(filled) / len(filled) > 0.7


@pytest.mark.slow
def test_a_class_that_is_asked_for_is_shown(run):
    rows = [
        row
        for label in SHAPES
        for row in run(condition="class", label=label, steps=15, batch=4)["report"].data["pictures"]
    ]
    assert sum(row["named"][0] for row in rows) / len(rows) > 0.8  # chance is an eighth


def _within(centre, box):
    return box[0] <= centre[0] <= box[2] and box[1] <= centre[1] <= box[3]
