"""A trained model as a standard diffusers StableDiffusionPipeline folder, fp16 safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from transformers import CLIPTextModel

LIBRARIES = {
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "scheduler": ("diffusers", "DDIMScheduler"),
}


def export_pipeline(
    folder: Path,
    *,
    text_encoder: CLIPTextModel,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write everything but the tokenizer, whose files the data set writes to folder/tokenizer.

    The models are written in `dtype`; the objects passed in keep theirs. Returns the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"text_encoder": text_encoder, "vae": vae, "unet": unet}
    for name, model in parts.items():
        before = next(model.parameters()).dtype
        model.to(dtype).save_pretrained(folder / name, safe_serialization=True)
        model.to(before)
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        **{name: list(pair) for name, pair in LIBRARIES.items()},
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder
