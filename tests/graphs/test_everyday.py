"""The everyday graphs on the bundled model, with few steps: what each promises, not how good its pictures are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image as Pillow

from mezzotint.api import load

GRAPHS = Path(__file__).resolve().parents[2] / "graphs"
EVERYDAY = ("text_to_image", "image_to_image", "inpaint", "outpaint", "variations")
WEIGHTS = Path(__file__).resolve().parents[2] / "plugins" / "mezzotint_smallworld" / "weights"


@pytest.fixture
def run(runtime):
    def run(graph: str, **inputs):
        return load(GRAPHS / f"{graph}.json", runtime=runtime).run(steps=3, **inputs).outputs

    return run


def picture() -> torch.Tensor:
    with Pillow.open(GRAPHS / "assets" / "picture.png") as image:
        return torch.from_numpy(numpy.array(image.convert("RGB"))).float()[None] / 255


@pytest.mark.parametrize("name", EVERYDAY)
def test_an_everyday_graph_is_valid_and_describes_each_input(name, runtime):
    load(GRAPHS / f"{name}.json", runtime=runtime)
    doc = json.loads((GRAPHS / f"{name}.json").read_text("utf-8"))
    assert doc["name"] == name and doc["description"]
    assert [key for key, value in doc["inputs"].items() if not value.get("description")] == []
    assert [key for key, value in doc["inputs"].items() if "default" not in value] == []


def test_text_to_image_depends_on_prompt_and_seed_and_on_nothing_else(run):
    first = run("text_to_image", prompt="a red circle")["image"].data
    assert tuple(first.shape) == (1, 64, 64, 3) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(run("text_to_image", prompt="a red circle")["image"].data, first)
    assert not torch.equal(run("text_to_image", prompt="a red circle", seed=1)["image"].data, first)
    assert not torch.equal(run("text_to_image", prompt="a blue circle")["image"].data, first)


def test_picture_i_of_a_batch_is_that_of_seed_plus_i(run):
    both = run("text_to_image", batch=2)["image"].data
    torch.testing.assert_close(both[1:], run("text_to_image", seed=1)["image"].data, atol=1e-3, rtol=0)


def test_image_to_image_changes_more_with_more_strength(run):
    # The nearest to the picture is what the autoencoder alone makes of it.
    away = [
        (run("image_to_image", strength=strength, guidance=1)["image"].data - picture()).abs().mean().item()
        for strength in (0.1, 0.5, 1.0)
    ]
    assert away == sorted(away) and away[0] < 0.1


@pytest.mark.parametrize("region", ["rectangle", "ellipse", "file"])
def test_inpainting_keeps_what_lies_outside_to_the_bit(run, region):
    result = run("inpaint", region=region)["image"].data
    assert torch.equal(result[:, :, :32], picture()[:, :, :32])
    assert not torch.equal(result[:, :, 32:], picture()[:, :, 32:])


def test_variations_are_the_pictures_of_text_to_image_and_a_sheet_of_them(run):
    found = run("variations", seeds=[3, 7], columns=2, cell=64)
    singles = [run("text_to_image", seed=seed)["image"].data for seed in (3, 7)]
    assert all(torch.equal(a.data, b) for a, b in zip(found["images"], singles, strict=True))
    sheet = found["sheet"].data
    assert sheet.shape[2] == 2 * 64 + 3 * 8
    torch.testing.assert_close(sheet[:, 8:72, 8:72], singles[0], atol=0.51 / 255, rtol=0)


def test_another_checkpoint_is_one_input_away(run, runtime):
    same = run("text_to_image", model=str(WEIGHTS))["image"].data
    assert torch.equal(same, run("text_to_image")["image"].data)


@pytest.mark.parametrize("name", EVERYDAY)
def test_a_lora_file_goes_on_every_day_and_none_or_strength_nothing_leaves_the_picture(name, run, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "style.safetensors"
    generator = torch.Generator().manual_seed(0)
    pairs = {
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v": (128, 128),
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (128, 128),
    }
    tensors = {}
    for layer, (out, into) in pairs.items():
        tensors[f"{layer}.lora_A.weight"] = torch.randn(2, into, generator=generator)
        tensors[f"{layer}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
    save_file(tensors, file)
    more = {"seeds": [0]} if name == "variations" else {}
    output = "sheet" if name == "variations" else "image"
    plain = run(name, **more)[output].data
    assert torch.equal(run(name, lora=str(file), lora_strength=0, **more)[output].data, plain)
    assert not torch.equal(run(name, lora=str(file), **more)[output].data, plain)
