"""ADM, GLIDE and Imagen: the property that makes each of them that system, on the bundled weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import avg_pool2d

from mezzotint.api import load
from mezzotint_smallworld import check
from mezzotint_smallworld.checker import read
from mezzotint_smallworld.scene import SHAPES

GRAPHS = Path(__file__).resolve().parents[2] / "graphs" / "text_to_image"


@pytest.fixture(scope="module")
def run(runtime):
    def made(name: str, **inputs: Any) -> Any:
        return load(GRAPHS / f"{name}.json", runtime=runtime).run(**inputs).outputs

    return made


@pytest.fixture(scope="module")
def captions(runtime):
    """Of combinations that no network has seen."""
    world = {"seed": 990000, "count": 24, "things": 1, "split": "test"}
    nodes = {"world": {"use": "smallworld.pictures@1", "inputs": world}}
    document = {"format": 1, "nodes": nodes, "outputs": {"captions": {"ref": "world.captions"}}}
    return load(document, runtime=runtime).run().outputs["captions"]


def right(image: Any, prompts: list[str], aspect: str = "all") -> float:
    return check(image, prompts=prompts).data["score"][aspect]


def seen(picture: torch.Tensor) -> list[str]:
    """The shapes that the checker sees in [64, 64, 3]."""
    pixels = picture.mul(255).round().clamp(0, 255).byte().numpy()
    return [thing.shape for thing in read(pixels).things]


def test_inpainting_by_glide_keeps_what_is_known_to_the_bit(run):
    found = run("glide_inpaint", batch=1, steps=2, prompt=["a large red heart"])
    again = run("glide_inpaint", batch=1, steps=2, prompt=["a large blue star"])
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[12:52, 12:52] = False
    assert torch.equal(found["image"].data[0][outside], again["image"].data[0][outside])
    rim = torch.ones(32, 32, dtype=torch.bool)
    rim[6:26, 6:26] = False
    assert torch.equal(found["small"].data[0][rim], again["small"].data[0][rim])
    assert not torch.equal(found["small"].data[0][~rim], again["small"].data[0][~rim])


def test_guidance_by_adms_classifier_at_scale_0_is_none_in_either_form(run):
    for form in ("ddim", "ancestral"):
        shared = {"batch": 1, "steps": 2, "told": False, "form": form}
        first, second = (run("adm", label=[label], scale=0, **shared)["small"].data for label in (0, 3))
        assert torch.equal(first, second)
        assert not torch.equal(first, run("adm", label=[3], scale=30, **shared)["small"].data)


@pytest.mark.slow
def test_adms_classifier_makes_the_pictures_of_a_class_more_alike(run):
    labels = [number % 8 for number in range(32)]
    spread = {}
    for scale in (0, 4, 60):
        small = run("adm", label=labels, batch=32, scale=scale, told=False)["small"].data
        spread[scale] = sum(float(small[number::8].var(0).mean()) for number in range(8))
    assert spread[0] > spread[4] > spread[60]


@pytest.mark.slow
def test_adm_shows_the_class_that_it_is_told_and_its_classifier_helps(run):
    labels = [number % 8 for number in range(32)]
    shares = []
    for told, scale in ((False, 0), (True, 0), (True, 10)):
        pictures = run("adm", label=labels, batch=32, scale=scale, told=told)["image"]
        shares.append(sum(SHAPES[k] in seen(pictures.data[i]) for i, k in enumerate(labels)))
    assert shares[0] < 10 and shares[1] > 2 * shares[0] and shares[2] >= shares[1]


@pytest.mark.slow
def test_imagen_shows_what_unseen_captions_say(run, captions):
    image = run("imagen", prompt=captions, batch=24)["image"]
    assert right(image, captions) >= 45 and right(image, captions, "shape") >= 80


@pytest.mark.slow
def test_glide_shows_what_unseen_captions_say(run, captions):
    image = run("glide", prompt=captions, batch=24)["image"]
    assert right(image, captions) >= 75 and right(image, captions, "shape") >= 85


@pytest.mark.slow
def test_dynamic_thresholding_saturates_fewer_pixels_than_static(run, captions):
    share = {}
    for threshold in ("static", "dynamic"):
        found = run("imagen", prompt=captions[:8], batch=8, guidance=8, threshold=threshold, level=0)
        share[threshold] = float(((found["small"].data * 2 - 1).abs() > 0.995).float().mean())
    assert share["dynamic"] < 0.5 * share["static"]


def test_what_is_enlarged_is_the_small_picture_still(runtime):
    world = {"seed": 880000, "count": 4, "split": "test"}
    small = {"image": {"ref": "world.image"}, "width": 32, "height": 32, "filter": "box"}
    large = {"image": {"ref": "small.image"}, "batch": 4, "level": 0, "steps": 4}
    nodes = {
        "world": {"use": "smallworld.pictures@1", "inputs": world},
        "small": {"use": "image.resize@1", "inputs": small},
        "large": {"use": "graph:bundled:graphs/text_to_image/enlarge.json", "inputs": large},
    }
    outputs = {"small": {"ref": "small.image"}, "large": {"ref": "large.image"}}
    found = load({"format": 1, "nodes": nodes, "outputs": outputs}, runtime=runtime).run().outputs
    means = avg_pool2d(found["large"].data.movedim(-1, 1), 2)
    error = (means - found["small"].data.movedim(-1, 1)).square().mean()
    assert -10 * error.log10() > 28


@pytest.mark.slow
def test_the_level_of_noise_changes_what_is_enlarged_and_not_the_small_picture(run, captions):
    low, high = (run("imagen", prompt=captions[:2], batch=2, steps=8, level=level) for level in (0.0, 0.3))
    assert torch.equal(low["small"].data, high["small"].data)
    assert (low["image"].data - high["image"].data).abs().max() > 0.02
