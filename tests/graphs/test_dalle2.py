"""DALL-E 2's graphs with the bundled weights: embeddings decide, and moving them moves what is seen."""

from __future__ import annotations

import colorsys
from pathlib import Path

import pytest
import torch

from mezzotint.api import load

GRAPHS = Path(__file__).resolve().parents[2] / "graphs" / "text_to_image"
FEW = {"steps": 2, "upsampler_steps": 1}


@pytest.fixture
def run(runtime, tmp_path):
    def call(name, **inputs):
        return load(GRAPHS / f"{name}.json", runtime=runtime).run(out=tmp_path, **inputs).outputs

    return call


def test_either_prior_makes_a_picture_of_each_caption_and_not_the_same(run):
    prompts = ["a red circle", "a blue square"]
    made = [run("dalle2", prompt=prompts, prior=prior, prior_steps=2, batch=2, **FEW)["image"].data
            for prior in ("diffusion", "autoregressive")]  # fmt: skip
    assert all(image.shape == (2, 64, 64, 3) for image in made)
    assert not torch.allclose(made[0], made[1], atol=0.02)


def test_the_strip_begins_and_ends_where_its_captions_lead(run):
    ends = {"first": "a red circle, white background", "second": "a blue circle, white background"}
    strip = run("dalle2_interpolation", **ends, at=[0, 1], **FEW)["images"]
    one = run("dalle2_interpolation", **{**ends, "second": "a green star"}, at=[0], **FEW)["images"]
    other = run("dalle2_interpolation", first="a green star", second=ends["second"], at=[1], **FEW)["images"]
    assert torch.equal(strip[0].data, one[0].data) and torch.equal(strip[1].data, other[0].data)


def test_variations_differ_by_their_seeds(run):
    free = run("dalle2_variations", seeds=[0, 1], **FEW)["images"]
    assert free[0].data.shape == (1, 64, 64, 3)
    assert not torch.allclose(free[0].data, free[1].data, atol=0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_between_two_colours_the_hue_moves_one_way(run):
    images = run("dalle2_interpolation")["images"]
    hues = torch.tensor([_warm_hue(image.data[0]) for image in images])
    assert hues[-1] - hues[0] > 0.1
    assert (hues.diff() > 0).sum() >= 3


def _warm_hue(picture):
    """The median hue of strong colours from red to yellow, red 0 and yellow 1 / 6."""
    found = [colorsys.rgb_to_hsv(*pixel) for pixel in picture.flatten(0, 1).tolist()]
    hues = [(hue + 0.5) % 1 - 0.5 for hue, saturation, value in found if saturation > 0.6 and value > 0.5]
    return torch.tensor([hue for hue in hues if -0.08 < hue < 0.25]).median().item()
