"""The exported folder is an ordinary diffusers pipeline."""

from __future__ import annotations

import json

import pytest
import torch

from mezzotint_smallworld import tokens
from mezzotint_training.autoencoder import make_autoencoder
from mezzotint_training.denoiser import make_denoiser, make_scheduler
from mezzotint_training.export import export_pipeline
from mezzotint_training.text_encoder import make_text_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("export")
    tokens.write_tokenizer(folder / "tokenizer")
    vocabulary = len(json.loads((folder / "tokenizer" / "vocab.json").read_text(encoding="utf-8")))
    return export_pipeline(
        folder,
        text_encoder=make_text_encoder(vocabulary, width=16, layers=1, heads=2),
        vae=make_autoencoder((8, 8, 16), 8, 2),
        unet=make_denoiser((8, 16), words=16, heads=2, groups=4),
        scheduler=make_scheduler(),
    )


@pytest.mark.filterwarnings("ignore")
def test_diffusers_loads_and_runs_it(folder):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline("a red circle", num_inference_steps=2, height=64, width=64, output_type="np").images
    assert pictures.shape == (1, 64, 64, 3)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_weights_are_half_precision_safetensors(folder):
    from safetensors import safe_open

    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    assert files == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    for path in files:
        with safe_open(folder / path, "pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} <= {"F16", "I64"}
