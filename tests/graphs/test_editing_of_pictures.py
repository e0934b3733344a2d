"""The graphs that edit a picture which was not made here: null-text inversion and Imagic, with few steps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image as Pillow

from mezzotint import UserError
from mezzotint.api import load
from mezzotint.errors import MezzotintError

GRAPHS = Path(__file__).resolve().parents[2] / "graphs" / "editing"
FEW = {"fit_steps": 2, "tune_steps": 2, "batch": 2, "steps": 2, "eta": [0, 1]}


def error(picture: torch.Tensor) -> float:
    """Mean squared error to the picture that Imagic edits."""
    with Pillow.open(GRAPHS / "imagic.png") as image:
        wanted = torch.from_numpy(numpy.array(image.convert("RGB"))).float()[None] / 255
    return (picture - wanted).square().mean().item()


@pytest.fixture
def run(runtime):
    def run(graph: str, **inputs):
        return load(GRAPHS / f"{graph}.json", runtime=runtime).run(**inputs)

    return run


def test_null_text_comes_back_nearer_than_plain_guidance(run):
    report = run("null_text", steps=6, updates=5, iterations=2).outputs["report"].data
    # Half is the promise; as shipped it is less than a hundredth.
    assert report["rebuilt"] <= report["plain"] / 2
    assert len(report["steps"]) == 6


def test_imagic_learns_in_both_stages_and_draws_a_strip_and_two_curves(run):
    found = run("imagic", **FEW).outputs
    fitting, tuning = (found[name].data["validation"][-1] for name in ("fitting", "tuning"))
    assert tuning["loss"] < tuning["start"] and fitting["loss"] < fitting["start"]
    assert tuning["start"] == pytest.approx(fitting["loss"], rel=1e-4)
    for name in ("likeness", "obedience"):
        assert [row["eta"] for row in found[name].data["rows"]] == [0, 1]
    assert len(found["images"]) == 2
    assert not torch.equal(found["images"][0].data, found["images"][1].data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_imagic_as_shipped_goes_from_the_picture_to_the_target(run):
    found = run("imagic").outputs
    likeness, obedience = ([row["CLIP score"] for row in found[n].data["rows"]] for n in ("likeness", "obedience"))
    # Near the picture's own encoding all pictures are the same but for a thousandth.
    assert likeness[0] > max(likeness) - 1 and likeness[0] > likeness[-1] + 20
    assert obedience[-1] > obedience[0] + 20
    assert all(after > before - 1.5 for before, after in pairwise(obedience))
    assert error(found["images"][0].data) < 0.1 * error(found["images"][-1].data)


def test_the_picture_s_own_encoding_and_the_target_s_are_the_ends_of_the_strip(run):
    alone = [run("imagic", **{**FEW, "eta": [eta]}).outputs["images"][0].data for eta in (0, 1)]
    both = [image.data for image in run("imagic", **FEW).outputs["images"]]
    assert all(torch.equal(a, b) for a, b in zip(alone, both, strict=True))


@pytest.mark.parametrize("graph", ["null_text", "imagic"])
def test_a_picture_of_a_size_that_the_model_does_not_take_is_refused(run, graph):
    with pytest.raises((UserError, MezzotintError), match=r"width|multiple"):
        run(graph, width=4, **(FEW if graph == "imagic" else {"steps": 2}))
