"""The parts of a Stable-Diffusion-shaped model as objectives, and the checkpoint that they make together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzotint import UserError, Weights, node
from mezzotint_training.checkpoint import Checkpoint, split
from mezzotint_training.latent_text import DecoderTraining, LatentTraining, TextTraining
from mezzotint_training.objective import Objective

__all__ = ["autoencoder", "checkpoint", "denoiser", "text_encoder"]

Count = Annotated[int, Field(ge=1, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
Widths = Annotated[list[Count], Field(min_length=1, max_length=8)]


@node("training.text_encoder")
def text_encoder(*, width: Count = 128, layers: Count = 2, heads: Count = 4) -> Objective:
    """Start a CLIP text encoder by having it say what each caption says. No picture is needed.

    The data set's reader gives captions, what they say as classes, and a tokenizer's files, as the small world's.

    width: of the encoder.
    layers: of the encoder.
    heads: of its attention.

    Raises: UserError: a data set that does not say what its captions mean, when training starts.
    """
    return TextTraining(width, layers, heads)


@node("training.autoencoder")
def autoencoder(
    *,
    channels: Widths = [32, 32, 64],  # noqa: B006
    latent_channels: Count = 8,
    whitening: Share = 0.5,
    fitted_on: Count = 8000,
) -> Objective:
    """A KL autoencoder whose encoder is the principal components of patches, exact from the first step.

    Only the decoder learns: it starts as the linear reconstruction and learns the outlines.

    channels: of the blocks, from the pixels down; each but the last halves the side.
    latent_channels: components that are kept.
    whitening: 0 keeps each component's own spread, 1 gives all the same.
    fitted_on: pictures that the components are computed from.
    """
    return DecoderTraining(tuple(channels), latent_channels, whitening, fitted_on)


@node("training.denoiser")
def denoiser(
    autoencoder: Weights,
    text_encoder: Weights,
    *,
    channels: Widths = [64, 128],  # noqa: B006
    layers: Count = 1,
    heads: Count = 4,
    focus: Share = 0.5,
) -> Objective:
    """A text-conditional latent denoiser (v-prediction), and the text encoder along with it.

    Its weights come as one value: "unet" and "text_encoder".

    autoencoder: whose latents are learnt.
    text_encoder: where the words start, with its tokenizer.
    channels: of the U-Net's levels.
    layers: blocks per level.
    heads: of its attention.
    focus: share of the noise levels drawn from sigma / alpha = 1 to 8, where outlines are decided.

    Raises: UserError: weights of other models.
    Source: Salimans and Ho 2022 (v-prediction); Ho and Salimans 2022 (a tenth of the captions left out).
    """
    for given, wanted in ((autoencoder, "AutoencoderKL"), (text_encoder, "CLIPTextModel")):
        if given.target != wanted:
            raise UserError(
                f"training.denoiser: wanted the weights of a {wanted}, got those of {given.target or 'no model'}"
            )
    if "tokenizer" not in text_encoder.meta:
        raise UserError("training.denoiser: the text encoder has no tokenizer; take one of training.text_encoder")
    return LatentTraining(autoencoder, text_encoder, tuple(channels), layers, heads, focus)


@node("training.checkpoint")
def checkpoint(autoencoder: Weights, denoiser: Weights) -> Checkpoint:
    """Put the parts of a text-to-image model together; as an output it is a folder that diffusers loads.

    autoencoder: as trained by training.autoencoder.
    denoiser: with its text encoder, as trained by training.denoiser.

    Raises: UserError: weights of something else.
    """
    parts = split(denoiser)
    lacking = [name for name in ("unet", "text_encoder") if name not in parts]
    if lacking:
        raise UserError(
            f"training.checkpoint: the denoiser's weights have no {lacking[0]}, but {', '.join(parts)}"
        )
    files = dict(parts["text_encoder"].meta["tokenizer"])
    return Checkpoint({"vae": autoencoder, "text_encoder": parts["text_encoder"], "unet": parts["unet"]}, files)
