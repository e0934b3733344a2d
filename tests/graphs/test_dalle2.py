"""DALL-E 2's graphs with the bundled weights: embeddings decide, and moving them moves what is seen."""

from __future__ import annotations

import colorsys
from pathlib import Path

import pytest
import torch

from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore
from mezzotint_smallworld import check

GRAPHS = Path(__file__).resolve().parents[2] / "graphs" / "text_to_image"
FEW = {"steps": 2, "upsampler_steps": 1}


@pytest.fixture(scope="module")
def runtime():
    return Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))


@pytest.fixture
def run(runtime, tmp_path):
    def call(name, **inputs):
        return load(GRAPHS / f"{name}.json", runtime=runtime).run(out=tmp_path, **inputs).outputs

    return call


def test_either_prior_makes_pictures_and_not_the_same(run):
    made = [run("dalle2", prior=prior, prior_steps=2, batch=2, **FEW)["image"].data
            for prior in ("diffusion", "autoregressive")]  # fmt: skip
    assert all(image.shape == (2, 64, 64, 3) for image in made)
    assert not torch.allclose(made[0], made[1], atol=0.02)


def test_several_captions_make_a_picture_each(run):
    prompts = ["a red circle", "a blue square", "a green star"]
    image = run("dalle2", prompt=prompts, batch=3, caption="unread", prior_steps=2, **FEW)["image"].data
    assert image.shape[0] == 3 and not torch.allclose(image[0], image[1], atol=0.02)


def test_the_strip_begins_and_ends_where_its_captions_lead(run):
    ends = {"first": "a red circle, white background", "second": "a blue circle, white background"}
    strip = run("dalle2_interpolation", **ends, at=[0, 1], **FEW)["images"]
    one = run("dalle2_interpolation", **{**ends, "second": "a green star"}, at=[0], **FEW)["images"]
    other = run("dalle2_interpolation", first="a green star", second=ends["second"], at=[1], **FEW)["images"]
    assert torch.equal(strip[0].data, one[0].data) and torch.equal(strip[1].data, other[0].data)


def test_variations_differ_by_their_seeds_and_without_eta_by_nothing(run):
    free = run("dalle2_variations", seeds=[0, 1], **FEW)["images"]
    tied = run("dalle2_variations", seeds=[0], eta=0, **FEW)["images"]
    assert not torch.allclose(free[0].data, free[1].data, atol=0.02)
    assert tied[0].data.shape == (1, 64, 64, 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_eta_and_guidance_the_picture_comes_back(run):
    from mezzotint_image import load as load_picture

    picture = load_picture(GRAPHS / "dalle2_picture.png").image.data
    back = run("dalle2_variations", seeds=[0], eta=0, steps=50)["images"][0].data
    assert (back - picture).square().mean() < 0.01


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_between_two_colours_the_hue_moves_one_way(run):
    images = run("dalle2_interpolation")["images"]
    middles = torch.stack([image.data[0, 28:36, 28:36].mean((0, 1)) for image in images])
    hues = torch.tensor([colorsys.rgb_to_hsv(*middle.tolist())[0] for middle in middles])
    hues = (hues + 0.5) % 1 - 0.5  # red lies on both ends of the circle
    assert hues[-1] - hues[0] > 0.1
    assert (hues.diff() > 0).sum() >= 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_embedding_alone_says_what_to_draw(run):
    prompts = ["a large red circle in the centre, white background", "a large blue square on the left, yellow background",
               "a small green heart on the right, white background", "a large black ring in the centre, red background"]  # fmt: skip
    image = run("dalle2", prompt=prompts, batch=4, caption="unread")["image"]
    score = check(image, prompts=prompts).data["score"]
    assert score["colour"] >= 75 and score["background"] >= 75
