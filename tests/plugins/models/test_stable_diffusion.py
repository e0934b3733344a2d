"""The graph of Stable Diffusion on a tiny random checkpoint in the real layouts, against diffusers' pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore

GRAPH = Path(__file__).resolve().parents[3] / "graphs" / "text_to_image" / "stable_diffusion.json"
PROMPTS = ["a red circle on the left", "a large blue square"]


@pytest.fixture(scope="module")
def runtime():
    return Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))


def made(runtime, **inputs):
    return load(GRAPH, runtime=runtime).run(**inputs).outputs["image"].data


@pytest.fixture(scope="module")
def wanted(tiny):
    """What diffusers' own pipeline makes: DDIM as Stable Diffusion's authors set it."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=tiny.vae, text_encoder=tiny.text, tokenizer=tiny.tokenizer, unet=tiny.unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    found = pipeline(
        PROMPTS, negative_prompt=["a large circle"] * 2, num_inference_steps=4, guidance_scale=7.5,
        height=16, width=16, generator=generators, output_type="pt",
    )  # fmt: skip
    return found.images.permute(0, 2, 3, 1)


@pytest.mark.parametrize("layout", ["folder", "original", "packed"])
def test_the_graph_makes_the_pictures_of_the_pipeline_from_every_layout(
    layout, tiny, original, packed, runtime, wanted
):
    source = {"folder": tiny.source, "original": original, "packed": packed}[layout].path
    config = {"config": str(tiny.folder)} if layout == "original" else {}
    found = made(
        runtime, model=source, prompt=PROMPTS, negative="a large circle", seed=5, steps=4, batch=2, width=16,
        height=16, **config,
    )  # fmt: skip
    assert wanted.std() > 0.01  # a random network's picture, and not a flat one
    assert torch.allclose(found, wanted, atol=1e-3)


def test_without_a_size_it_is_the_models_own(tiny, runtime):
    assert made(runtime, model=str(tiny.folder), prompt=["a"], steps=1).shape == (1, 16, 16, 3)
    assert made(runtime, model=str(tiny.folder), prompt=["a"], steps=1, width=32).shape == (1, 16, 32, 3)
