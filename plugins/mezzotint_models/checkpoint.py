"""Checkpoints as recipes.

`models.checkpoint` reads configurations only, `models.pack` makes one file of a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mezzotint import Autoencoder, Denoiser, Source, TextEncoder, UserError, Weights, node
from mezzotint_models.description import PACKED_KEY, describe, tokenizer_files
from mezzotint_models.schedule import schedule_from

__all__ = ["Checkpoint", "checkpoint", "pack"]

Precision = Literal["auto", "float32", "float16", "bfloat16"]


class Checkpoint(NamedTuple):
    """denoiser: the U-Net and its noise schedule.
    text_encoder: the tokenizer and CLIP's text model.
    autoencoder: between pixels and the denoiser's latents.
    """

    denoiser: Denoiser
    text_encoder: TextEncoder
    autoencoder: Autoencoder


@node("models.checkpoint")
def checkpoint(source: Source, *, config: Source | None = None, dtype: Precision = "auto") -> Checkpoint:
    """A Stable Diffusion checkpoint as three recipes; weights are loaded when a node needs them.

    source: a diffusers folder (1.x or 2.x), a .safetensors file in the original 1.x layout, or one from
    models.pack.
    config: a diffusers folder (weights not needed) with the configurations and the tokenizer for an original
    file.
    dtype: the type that the models compute in; "auto" is the run's own.

    Raises: UserError: a missing or damaged part, a pickle, a model of another family.
    """
    found = describe(source, config)
    space, downscale, channels = latent_space(found.vae, source.uri)
    shared: dict[str, Any] = {"layout": found.layout, "dtype": dtype}
    denoiser = Denoiser(
        source=source,
        loader="models.unet",
        config={**shared, "model": dict(found.unet)},
        schedule=schedule_from(found.scheduler, f"{source.uri}: scheduler"),
        channels=int(found.unet.get("out_channels", 4)),
        sample_size=_sample_size(found.unet.get("sample_size")),
        space=space,
        downscale=downscale,
    )
    # Only a tokenizer from elsewhere is named: the source itself may be moved between runs.
    tokenizer = vars(found.tokenizer) if found.tokenizer is not None and found.tokenizer is not source else None
    text_encoder = TextEncoder(
        source=source,
        loader="models.clip_text",
        config={**shared, "model": dict(found.text_encoder), "tokenizer": tokenizer},
    )
    autoencoder = Autoencoder(
        source=source,
        loader="models.autoencoder_kl",
        config={**shared, "model": dict(found.vae)},
        channels=channels,
        downscale=downscale,
        space=space,
        scale=float(found.vae.get("scaling_factor") or 0.18215),
        shift=float(found.vae.get("shift_factor") or 0.0),
    )
    return Checkpoint(denoiser, text_encoder, autoencoder)


@node("models.pack")
def pack(source: Source) -> Weights:
    """A diffusers folder as one safetensors file that models.checkpoint reads.

    source: the folder. Its weights, configurations and tokenizer go into the file.

    Raises: UserError: it is a file already, or a part is missing.
    """
    from mezzotint_models.weights import PARTS, read_tensors

    found = describe(source)
    if found.layout != "folder":
        raise UserError(f"{source.uri}: only a diffusers folder can be packed, this is one file already")
    tensors = {
        f"{part}.{name}": tensor
        for part in PARTS
        for name, tensor in read_tensors(Path(source.path), "folder", part).items()
    }
    parts = {part: dict(getattr(found, part)) for part in (*PARTS, "scheduler")}
    return Weights(tensors, kind="full", meta={PACKED_KEY: {**parts, "tokenizer": tokenizer_files(source)}})


def latent_space(vae: Mapping[str, Any], where: str) -> tuple[str, int, int]:
    """Name of the latent space, pixels per latent, channels.

    The name tells factor, channels and scaling, not weights: a decoder tuned on the same latents may take
    its place.
    """
    blocks = vae.get("block_out_channels", [64])
    channels = vae.get("latent_channels", 4)
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= 8 or not isinstance(channels, int):
        raise UserError(f"{where}: vae/config.json has odd block_out_channels or latent_channels")
    downscale = 2 ** (len(blocks) - 1)
    scale, shift = vae.get("scaling_factor") or 0.18215, vae.get("shift_factor") or 0.0
    return f"kl-f{downscale}c{channels}-x{scale:g}" + (f"-{shift:g}" if shift else ""), downscale, channels


def _sample_size(found: Any) -> int:
    if isinstance(found, list | tuple) and found:
        found = found[0]
    return found if isinstance(found, int) and found > 0 else 64
