"""Blended diffusion and the everyday graphs that edit: the outside is exact, and what each setting promises."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image as Pillow

from mezzotint import UserError
from mezzotint.api import load
from mezzotint.errors import MezzotintError

GRAPHS = Path(__file__).resolve().parents[2] / "graphs"
PIXELS = {"batch": 1, "steps": 2, "views": 2, "left": 0.5, "right": 1, "top": 0, "bottom": 1}
LATENT = {"batch": 1, "steps": 2, "tuning": 2}


@pytest.fixture
def run(runtime):
    def run(graph: str, **inputs):
        return load(GRAPHS / f"{graph}.json", runtime=runtime).run(**inputs).outputs

    return run


def picture() -> torch.Tensor:
    with Pillow.open(GRAPHS / "assets" / "picture.png") as image:
        return torch.from_numpy(numpy.array(image.convert("RGB"))).float()[None] / 255


def grey_file(path: Path, value: int, size: int = 64) -> str:
    Pillow.fromarray(numpy.full((size, size), value, numpy.uint8)).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("graph", "inputs"), [("editing/blended_diffusion", PIXELS), ("editing/blended_latent_diffusion", LATENT)]
)
def test_outside_the_mask_the_result_is_the_original_exactly(run, graph, inputs):
    made = run(graph, **{**inputs, "left": 0.5})["images"].data
    assert torch.equal(made[:, :, :32], picture()[:, :, :32])
    assert not torch.equal(made[:, :, 32:], picture()[:, :, 32:])


def test_the_pixels_that_were_sampled_are_the_originals_outside_without_any_pasting(run):
    small = run("editing/blended_diffusion", **PIXELS)["small"].data
    reduced = picture().movedim(-1, 1).unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)).movedim(1, -1)
    torch.testing.assert_close(small[:, :, :16], reduced[:, :, :16], atol=1e-6, rtol=0)


def test_skipping_all_steps_returns_the_picture(run):
    made = run("editing/blended_diffusion", **{**PIXELS, "skip": 1})["images"].data
    assert torch.equal(made, picture())


def test_an_empty_prompt_is_no_guidance_and_still_an_edit(run):
    empty = run("editing/blended_diffusion", **{**PIXELS, "prompt": ""})["images"].data
    unguided = run("editing/blended_diffusion", **{**PIXELS, "scale": 0})["images"].data
    assert torch.equal(empty, unguided) and not torch.equal(empty, picture())


@pytest.mark.parametrize(
    ("graph", "inputs"), [("editing/blended_diffusion", PIXELS), ("editing/blended_latent_diffusion", LATENT)]
)
@pytest.mark.parametrize(
    ("value", "size", "message"),
    [(0, 64, "nothing would change; make it white"), (255, 48, "resize them together")],
)
def test_an_empty_mask_and_one_of_another_size_are_refused(run, tmp_path, graph, inputs, value, size, message):
    with pytest.raises((UserError, MezzotintError), match=message):
        run(graph, region="file", mask=grey_file(tmp_path / "mask.png", value, size), **inputs)


def test_an_empty_mask_is_refused_by_inpaint_too(run, tmp_path):
    with pytest.raises((UserError, MezzotintError), match="nothing would change; make it white"):
        run("inpaint", region="file", mask=grey_file(tmp_path / "mask.png", 0), steps=1)


@pytest.mark.parametrize("graph", ["inpaint", "image_to_image", "outpaint"])
@pytest.mark.parametrize("strength", [0, 1.5])
def test_a_strength_out_of_range_is_refused(run, graph, strength):
    with pytest.raises(MezzotintError, match="strength"):
        run(graph, strength=strength)


def test_a_map_keeps_black_exactly_and_a_white_one_changes_all(run, tmp_path):
    ramp = numpy.zeros((64, 64), numpy.uint8)
    ramp[:, 32:] = 255
    Pillow.fromarray(ramp).save(tmp_path / "map.png")
    made = run("image_to_image", change="map", map=str(tmp_path / "map.png"), steps=3)["image"].data
    assert torch.equal(made[:, :, :32], picture()[:, :, :32])
    assert not torch.equal(made[:, :, 32:], picture()[:, :, 32:])


def test_a_white_map_is_the_graph_without_a_map(run, tmp_path):
    plain = run("image_to_image", steps=3)["image"].data
    white = run("image_to_image", change="map", map=grey_file(tmp_path / "white.png", 255), steps=3)["image"].data
    assert torch.equal(plain, white)


def test_grey_changes_less_than_white(run, tmp_path):
    def away(value: int) -> float:
        made = run(
            "image_to_image", change="map", map=grey_file(tmp_path / f"{value}.png", value), steps=5, strength=1
        )
        return float((made["image"].data - picture()).square().mean())

    assert away(60) < away(255)


def test_soft_edges_by_strength_keep_what_the_feather_does_not_reach(run):
    made = run("inpaint", soft="strength", feather=2, left=0.6, steps=3)["image"].data
    assert torch.equal(made[:, :, :28], picture()[:, :, :28])
    assert not torch.equal(made[:, :, 40:], picture()[:, :, 40:])


def test_outpainting_keeps_the_picture_and_paints_the_room(run):
    found = run("outpaint", image=str(GRAPHS / "assets" / "picture.png"), width=64, left=8, right=8, steps=2)
    made = found["image"].data
    assert tuple(made.shape) == (1, 64, 80, 3)
    assert torch.equal(made[:, :, 8:72], picture())
    assert found["mask"].data.sum() == 16 * 64


def test_no_room_is_refused_with_what_to_do(run):
    with pytest.raises((UserError, MezzotintError), match=r"no room to paint: .* Give at least one of them some"):
        run("outpaint", left=0, right=0)
