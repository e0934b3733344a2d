"""What judges noisy pictures, and can guide a denoiser: ADM's classifier and GLIDE's noised CLIP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Context, TextEncoder, UserError, node
from mezzotint_models import Architecture
from mezzotint_training.objective import Objective

if TYPE_CHECKING:
    from mezzotint_training.noisy_tasks import NoisyTask

__all__ = ["NoisedClipObjective", "NoisyClassifierObjective", "noised_clip", "noisy_classifier"]

Count = Annotated[int, Field(ge=1, le=10**6)]
Channels = Annotated[list[Count], Field(min_length=1, max_length=8)]


@dataclass(frozen=True, eq=False)
class NoisyClassifierObjective(Objective):
    """A network from noisy pictures to labels. architecture: of the denoiser that it will guide."""

    architecture: Architecture
    encoder: dict[str, Any] = field(default_factory=dict)

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> NoisyTask:
        from mezzotint_training.noisy_tasks import NoisyClassifierTask

        names = tuple(getattr(reader, "label_names", ()))
        if not names:
            raise UserError(
                'training.noisy_classifier: the data set has no labels; smallworld.dataset gives them with "label"'
            )
        return NoisyClassifierTask(self.architecture, self.encoder, names, reader, seed, batch)


@dataclass(frozen=True, eq=False)
class NoisedClipObjective(Objective):
    """A picture tower for noisy pictures beside a text tower that stays. encoder: the network's settings."""

    architecture: Architecture
    text_encoder: TextEncoder
    encoder: dict[str, Any] = field(default_factory=dict)

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> NoisyTask:
        from mezzotint_training.noisy_tasks import NoisedClipTask

        text = ctx.realise(self.text_encoder)
        return NoisedClipTask(self.architecture, self.encoder, text, reader, seed, batch)


@node("training.noisy_classifier")
def noisy_classifier(
    architecture: Architecture,
    *,
    channels: Channels = [48, 96, 96],  # noqa: B006
    layers: Count = 1,
    head_channels: Count = 24,
    patch: Annotated[int, Field(ge=1, le=64)] = 2,
) -> NoisyClassifierObjective:
    """Cross entropy of labels, read from pictures with any amount of noise on them.

    architecture: of the denoiser that it will guide: the pictures' size and the noise are taken from there.
    channels: of the levels of the network, half of a U-Net with attention pooling.
    layers: blocks per level.
    head_channels: of its attention.
    patch: side of what becomes one place of the network's grid.

    Items need a label, and the data set names of all labels.
    Raises: UserError: an architecture that does not work on pixels, or a side that the levels do not divide.
    Source: Dhariwal and Nichol 2021, section 4.
    """
    settings = _settings(architecture, channels, layers, head_channels, patch, "training.noisy_classifier")
    return NoisyClassifierObjective(architecture, settings)


@node("training.noised_clip")
def noised_clip(
    architecture: Architecture,
    text_encoder: TextEncoder,
    *,
    channels: Channels = [48, 96, 96],  # noqa: B006
    layers: Count = 1,
    head_channels: Count = 24,
    patch: Annotated[int, Field(ge=1, le=64)] = 2,
) -> NoisedClipObjective:
    """CLIP's picture tower anew, for pictures with any amount of noise, against a text tower that stays as it is.

    architecture: of the denoiser that it will guide: the pictures' size and the noise are taken from there.
    text_encoder: CLIP's, with its projection; the embeddings of both towers lie in its space.
    channels: of the levels of the network, half of a U-Net with attention pooling.
    layers: blocks per level.
    head_channels: of its attention.
    patch: side of what becomes one place of the network's grid.

    Raises: UserError: an architecture that does not work on pixels, or a side that the levels do not divide.
    Source: Nichol et al. 2021, section 2.4.
    """
    settings = _settings(architecture, channels, layers, head_channels, patch, "training.noised_clip")
    return NoisedClipObjective(architecture, text_encoder, settings)


def _settings(
    architecture: Architecture, channels: list[int], layers: int, head_channels: int, patch: int, node: str
) -> dict[str, Any]:
    if architecture.space != "pixels":
        raise UserError(f"{node}: the denoiser works on latents of {architecture.space!r}; wanted one of pixels")
    scale = patch * 2 ** (len(channels) - 1)
    if architecture.sample_size % scale:
        raise UserError(
            f"{node}: {len(channels)} levels over patches of {patch} need a side that {scale} divides, and the "
            f"denoiser's is {architecture.sample_size}"
        )
    if wrong := next((width for width in channels[1:] if width % head_channels), None):
        raise UserError(f"{node}: {wrong} channels are no multiple of head_channels {head_channels}")
    return {
        "size": architecture.sample_size, "in_channels": architecture.channels, "patch": patch,
        "channels": list(channels), "layers": layers, "head_channels": head_channels,
    }  # fmt: skip
