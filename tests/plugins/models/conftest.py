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


def _source_of(path: Path) -> Source:
    return Source(str(path), str(path), "0" * 64)


@pytest.fixture(scope="session")
def source_of():
    """Makes a resolved source of a path, as the engine would."""
    return _source_of


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
        folder=folder, source=_source_of(folder), unet=unet.eval(), vae=vae.eval(), text=text.eval(),
        tokenizer=tokenizer, scheduler=scheduler,
    )  # fmt: skip


@pytest.fixture(scope="session")
def original(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The same networks as one file with Stable Diffusion 1.x's own tensor names."""
    from safetensors.torch import save_file

    tensors = {
        **_unet_names(tiny.unet.state_dict(), tiny.unet.config),
        **_vae_names(tiny.vae.state_dict(), tiny.vae.config),
        **_text_names(tiny.text.state_dict()),
    }
    path = tmp_path_factory.mktemp("original") / "tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return _source_of(path)


_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip


def _unet_names(state: dict, config) -> dict:
    """diffusers' names to those of the published U-Net: blocks are counted through, up and down."""
    levels, layers = len(config.block_out_channels), config.layers_per_block
    blocks = {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1"}
    blocks["mid_block.resnets.1"] = "middle_block.2"
    for level in range(levels):
        for layer in range(layers):
            number = 1 + level * (layers + 1) + layer
            blocks[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{number}.0"
            blocks[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
        blocks[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{(level + 1) * (layers + 1)}.0.op"
        for layer in range(layers + 1):
            number = level * (layers + 1) + layer
            blocks[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{number}.0"
            blocks[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
        place = 2 if "CrossAttn" in config.up_block_types[level] else 1
        last = level * (layers + 1) + layers
        blocks[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{last}.{place}.conv"
    single = {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    }  # fmt: skip
    return {f"model.diffusion_model.{_renamed(name, {**blocks, **single})}": t for name, t in state.items()}


def _renamed(name: str, blocks: dict) -> str:
    old = next(block for block in blocks if name.startswith(f"{block}."))
    rest = name.removeprefix(f"{old}.")
    head, _, leaf = rest.partition(".")
    rest = f"{_RESNET[head]}.{leaf}" if head in _RESNET else rest
    return f"{blocks[old]}.{rest}"


def _vae_names(state: dict, config) -> dict:
    levels = len(config.block_out_channels)
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    renamed = {}
    for name, tensor in state.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        for level in range(levels):
            new = new.replace(f"encoder.down_blocks.{level}.resnets", f"encoder.down.{level}.block")
            new = new.replace(f"encoder.down_blocks.{level}.downsamplers.0", f"encoder.down.{level}.downsample")
            new = new.replace(f"decoder.up_blocks.{level}.resnets", f"decoder.up.{levels - 1 - level}.block")
            new = new.replace(
                f"decoder.up_blocks.{level}.upsamplers.0", f"decoder.up.{levels - 1 - level}.upsample"
            )
        new = new.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0" in new:
            for theirs, ours in attention.items():
                new = new.replace(f"mid_block.attentions.0.{theirs}.", f"mid.attn_1.{ours}.")
            # Stored as 1x1 convolutions.
            tensor = tensor[..., None, None] if tensor.ndim == 2 else tensor
        renamed[f"first_stage_model.{new}"] = tensor
    return renamed


def _text_names(state: dict) -> dict:
    import torch

    prefix = "cond_stage_model.transformer.text_model."
    renamed = {prefix + name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    return renamed | {f"{prefix}embeddings.position_ids": torch.arange(16).unsqueeze(0)}


@pytest.fixture(scope="session")
def packed(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The same networks as one file made by models.pack."""
    from mezzotint_image.tensors import write_weights
    from mezzotint_models.checkpoint import pack

    path = tmp_path_factory.mktemp("packed") / "tiny.safetensors"
    (content,) = write_weights(pack(tiny.source))
    path.write_bytes(content)
    return _source_of(path)
