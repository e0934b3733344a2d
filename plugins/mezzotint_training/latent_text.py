"""The parts of a Stable-Diffusion-shaped model as objectives: text encoder, autoencoder, denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mezzotint import UserError, Weights
from mezzotint_training.objective import Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_training.latent_text_tasks import DecoderTask, LatentTask, TextTask

__all__ = ["DecoderTraining", "LatentTraining", "TextTraining"]

# What the reader of a data set needs, by the node that asks.
SAYS = ("tokenizer_files", "caption", "classes", "class_counts", "noun_classes", "nouns")


@dataclass(frozen=True, eq=False)
class TextTraining(Objective):
    """A CLIP text encoder; fields as in `training.text_encoder`."""

    width: int = 128
    layers: int = 2
    heads: int = 4

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> TextTask:
        from mezzotint_training.latent_text_tasks import TextTask

        lacking = [name for name in SAYS if not hasattr(reader, name)]
        if lacking:
            raise UserError(
                "training.text_encoder: the data set does not say what its captions mean as classes; the small "
                "world does"
            )
        return TextTask(self, reader, seed, batch)


@dataclass(frozen=True, eq=False)
class DecoderTraining(Objective):
    """An AutoencoderKL whose encoder is fitted, and whose decoder learns; fields as in `training.autoencoder`."""

    channels: tuple[int, ...] = (32, 32, 64)
    latent_channels: int = 8
    whitening: float = 0.5
    fitted_on: int = 8000

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> DecoderTask:
        from mezzotint_training.latent_text_tasks import DecoderTask

        return DecoderTask(self, reader, seed, batch)


@dataclass(frozen=True, eq=False)
class LatentTraining(Objective):
    """A UNet2DConditionModel on latents, and its text encoder; fields as in `training.denoiser`."""

    autoencoder: Weights
    text_encoder: Weights
    channels: tuple[int, ...] = (64, 128)
    layers: int = 1
    heads: int = 4
    focus: float = 0.5

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> LatentTask:
        from mezzotint_training.latent_text_tasks import LatentTask

        return LatentTask(self, reader, seed, batch)
