"""Stable Diffusion 1.x as one file in its original layout: configurations from tensor shapes.

What shapes cannot tell is constant in the family: 8 heads in the U-Net, heads of 64 in the text encoder, the
scaling factor 0.18215 and the betas. After Rombach et al. 2022 and the published v1-inference.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mezzotint import UserError

__all__ = ["PREFIXES", "configs_from_shapes"]

Shapes = Mapping[str, tuple[int, ...]]

PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}


def configs_from_shapes(shapes: Shapes, where: str) -> dict[str, dict[str, Any]]:
    """Configurations of unet, vae, text_encoder and scheduler in diffusers' words.

    Raises: UserError: a part is missing or of another family.
    """
    for part, prefix in PREFIXES.items():
        if not any(name.startswith(prefix) for name in shapes):
            raise UserError(
                f"{where}: has no {part} under {prefix!r}. Read are Stable Diffusion 1.x files in the "
                "original layout and files made by models.pack; give other models as a diffusers folder"
            )
    try:
        return {
            "unet": _unet(_under(shapes, "unet")),
            "vae": _vae(_under(shapes, "vae")),
            "text_encoder": _text_encoder(_under(shapes, "text_encoder")),
            "scheduler": _scheduler(shapes),
        }
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{where}: not Stable Diffusion 1.x: the tensor {error} is missing or odd") from error


def _under(shapes: Shapes, part: str) -> Shapes:
    prefix = PREFIXES[part]
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _unet(shapes: Shapes) -> dict[str, Any]:
    if any(name.startswith("label_emb.") for name in shapes):
        raise UserError("a U-Net with class or size embeddings (SDXL, unCLIP) is not read from a single file")
    channels, attends, layers, context = [], [], [0], 768
    for index in range(1, _count(shapes, "input_blocks.")):
        name = f"input_blocks.{index}."
        if f"{name}0.op.weight" in shapes:
            layers.append(0)
            continue
        layers[-1] += 1
        attention = f"{name}1.transformer_blocks.0.attn2.to_k.weight"
        if layers[-1] == 1:
            channels.append(shapes[f"{name}0.out_layers.3.weight"][0])
            attends.append(attention in shapes)
        context = shapes[attention][1] if attention in shapes else context
    if len(set(layers)) != 1:
        raise UserError(f"a U-Net with {layers} residual blocks per level is not Stable Diffusion 1.x")
    linear = len(shapes["middle_block.1.proj_in.weight"]) == 2
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers[0],
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "cross_attention_dim": context,
        # Named so in diffusers, but for this model it counts the heads.
        "attention_head_dim": 8,
        "use_linear_projection": linear,
    }


def _vae(shapes: Shapes) -> dict[str, Any]:
    levels = _count(shapes, "encoder.down.")
    channels = [shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["quant_conv.weight"][0] // 2,
        "block_out_channels": channels,
        "layers_per_block": _count(shapes, "encoder.down.0.block."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "norm_num_groups": 32,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    }


def _text_encoder(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    return {
        "architectures": ["CLIPTextModel"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, "text_model.encoder.layers."),
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        # As published: 2 makes transformers take the pooled output at the highest token id.
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def _scheduler(shapes: Shapes) -> dict[str, Any]:
    # Two empty tensors mark files of v-prediction and zero terminal SNR by a convention of their authors.
    return {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction" if "v_pred" in shapes else "epsilon",
        "rescale_betas_zero_snr": "ztsnr" in shapes,
    }


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered blocks lie under `prefix`."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})
