"""Small random checkpoints in the real layouts, and a context that realises recipes without an engine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from mezzotint import Context, Source
from mezzotint_models import register_loaders

WORDS = ["a", "red", "blue", "circle", "square", "on", "the", "left", "large"]


class Services:
    """The engine's side of a context, for tests: nothing is pooled."""

    node_type = "test"
    device = "cpu"
    dtype = "float32"

    def __init__(self) -> None:
        self.loaders: dict = {}
        register_loaders(lambda name, loader: self.loaders.__setitem__(name, loader))
        self.realised: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def progress(self, done: int, total: int, preview: object) -> None:
        self.steps.append((done, total))

    def is_cancelled(self) -> bool:
        return False

    def realise(self, recipe, ctx):
        self.realised.append(recipe.loader)
        return self.loaders[recipe.loader](recipe, ctx)


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def ctx(services: Services) -> Context:
    return Context(services)


def source_of(path: Path) -> Source:
    return Source(str(path), str(path), "0" * 64)


def write_tokenizer(folder: Path) -> int:
    """A word-level tokenizer in CLIP's own files; returns the size of its vocabulary."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [","]
    vocabulary = [*letters, *(f"{c}</w>" for c in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        piece = word[0]
        for at in range(1, len(word)):
            right = word[at] + ("</w>" if at == len(word) - 1 else "")
            if (piece, right) not in merges:
                merges.append((piece, right))
                vocabulary.append(piece + right)
            piece += right
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    config = {**special, "model_max_length": 16, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return len(vocabulary)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A diffusers folder with random weights in Stable Diffusion 1.x's topology, and its networks."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    size = write_tokenizer(folder / "tokenizer")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64, attention_head_dim=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 64), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=32,
        scaling_factor=0.18215,
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=1,
            max_position_embeddings=16, projection_dim=64, bos_token_id=0, eos_token_id=2, pad_token_id=1,
        )
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="epsilon"
    )
    for model, name in ((unet, "unet"), (vae, "vae"), (text, "text_encoder"), (scheduler, "scheduler")):
        model.save_pretrained(folder / name)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return SimpleNamespace(
        folder=folder, source=source_of(folder), unet=unet.eval(), vae=vae.eval(), text=text.eval(),
        tokenizer=tokenizer, scheduler=scheduler,
    )  # fmt: skip
