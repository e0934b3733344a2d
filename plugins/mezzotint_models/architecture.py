"""An untrained denoiser as a value on an edge: which network, over which latents, by which schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Autoencoder, NoiseSchedule, Port, UserError, node

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Architecture", "unet"]


@dataclass(frozen=True, eq=False)
class Architecture(Port):
    """A denoiser before it is trained.

    cls, config: of the network, a name in `NETWORKS` and what it is made from. schedule: its forward process.
    channels, sample_size, space, downscale: as in `Denoiser`. patch: side of what the network sees as one place.
    """

    cls: str
    config: Mapping[str, Any] = field(default_factory=dict)
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    channels: int = 3
    sample_size: int = 32
    space: str = "pixels"
    downscale: int = 1
    patch: int = 1

    def build(self) -> nn.Module:
        """The network with random numbers from torch's generator, float32, on the CPU, in training mode.

        Raises: UserError: a configuration that makes no network.
        """
        from mezzotint_models.networks import start_network

        return start_network(self.cls, self.config)

    def record(self) -> dict[str, Any]:
        """The role record "denoiser", for `pack_network(module, denoiser=architecture.record())`."""
        return {
            "schedule": asdict(self.schedule), "channels": self.channels, "sample_size": self.sample_size,
            "space": self.space, "downscale": self.downscale, "patch": self.patch,
        }  # fmt: skip


Width = Annotated[int, Field(ge=0, le=65536)]
Head = Annotated[int, Field(ge=4, le=1024)]


@node("models.unet")
def unet(
    autoencoder: Autoencoder | None = None,
    *,
    size: Annotated[int, Field(ge=4, le=1024)] = 32,
    patch: Literal[1, 2, 4, 8] = 2,
    channels: Annotated[list[Annotated[int, Field(ge=4, le=4096)]], Field(min_length=1, max_length=8)] = [48, 96],  # noqa: B006
    layers: Annotated[int, Field(ge=1, le=8)] = 1,
    plain_levels: Annotated[int, Field(ge=0, le=8)] = 1,
    head_channels: Head | Annotated[list[Head], Field(min_length=1, max_length=8)] = 24,
    attention: Literal["joint", "cross", "none"] = "none",
    context: Width = 0,
    pooled: Width = 0,
    classes: Width = 0,
    class_tokens: Annotated[int, Field(ge=0, le=1024)] = 0,
    low_res: bool = False,
    level: bool = False,
    extra: Width = 0,
    learned_variance: bool = False,
    schedule: Literal["linear", "scaled_linear", "cosine"] = "cosine",
    beta_start: Annotated[float, Field(gt=0, lt=1)] | None = None,
    beta_end: Annotated[float, Field(gt=0, lt=1)] | None = None,
    train_steps: Annotated[int, Field(ge=2, le=100_000)] = 1000,
    prediction: Literal["eps", "v", "x0"] = "eps",
) -> Architecture:
    """A U-Net to train as a denoiser, of pixels, or of an autoencoder's latents.

    autoencoder: whose latents it makes; without one, pixels in -1..1.
    size: side of the pictures it is trained on.
    patch: it sees squares of this many pixels (or latents) as one place, and so works at size / patch.
    channels: of each level; each but the last is followed by a halving. Multiples of head_channels.
    layers: residual blocks in each level.
    plain_levels: how many levels, from the first, have no attention.
    head_channels: of one attention head; one for each level, if they differ (not for "none").
    attention: joint lets places attend to text and to each other at once (GLIDE), cross in turn (latent
    diffusion), none only to each other (ADM).
    context: width of the tokens that joint and cross attention read.
    pooled: width of a vector that is added to the time embedding; 0 is none.
    classes: how many classes it is told by number; one more, the last, stands for none of them.
    class_tokens: a class is told as this many learnt tokens too, which joint and cross attention read in place
    of a text's; 0 tells it by the time embedding alone (ADM).
    low_res: it is shown a smaller picture to enlarge.
    level: it is told how much noise that smaller picture has.
    extra: further input channels, such as a known picture and a mask.
    learned_variance: twice the output channels; the second half says what the variance is.
    schedule: how noise grows with time.
    beta_start, beta_end: of the first and last step, for linear (1e-4 and 0.02 if not given) and scaled_linear
    (0.00085 and 0.012).
    train_steps: of the schedule.
    prediction: what it predicts: the noise, the velocity, or the clean picture.
    Source: Dhariwal and Nichol 2021; Nichol et al. 2022; Rombach et al. 2022.
    """
    space, downscale, latent = "pixels", 1, 3
    if autoencoder is not None:
        space, downscale, latent = autoencoder.space, autoencoder.downscale, autoencoder.channels
    _check(size, patch, channels, head_channels, attention, context, downscale)
    if class_tokens and (not classes or attention == "none"):
        raise UserError("models.unet: class_tokens wants classes, and attention that reads tokens: joint or cross")
    config = {
        "in_channels": latent, "out_channels": latent * (2 if learned_variance else 1), "patch": patch,
        "channels": list(channels), "layers": layers, "plain_levels": min(plain_levels, len(channels)),
        "head_channels": head_channels, "attention": attention, "context": context, "pooled": pooled,
        "classes": classes, "class_tokens": class_tokens, "low_res": low_res, "level": level, "extra": extra,
        "groups": _groups(channels),
    }  # fmt: skip
    first, last = (0.0001, 0.02) if schedule == "linear" else (0.00085, 0.012)
    return Architecture(
        cls="mezzotint.unet",
        config=config,
        schedule=NoiseSchedule(
            kind=schedule,
            beta_start=first if beta_start is None else beta_start,
            beta_end=last if beta_end is None else beta_end,
            train_steps=train_steps,
            prediction=prediction,
        ),
        channels=latent,
        sample_size=size // downscale,
        space=space,
        downscale=downscale,
        patch=patch,
    )


def _check(
    size: int,
    patch: int,
    channels: list[int],
    head_channels: int | list[int],
    attention: str,
    context: int,
    downscale: int,
) -> None:
    """Raises: UserError: settings that do not go together."""
    step = downscale * patch * 2 ** (len(channels) - 1)
    if size % step:
        raise UserError(
            f"models.unet: size {size} does not divide by {step}: the latents' downscale times the patch times "
            f"the {len(channels) - 1} halvings"
        )
    heads = head_channels if isinstance(head_channels, list) else [head_channels] * len(channels)
    if len(heads) != len(channels) or (attention == "none" and isinstance(head_channels, list)):
        raise UserError(f"models.unet: head_channels is one number, or one for each level; got {head_channels}")
    odd = [width for width, head in zip(channels, heads, strict=True) if width % head]
    if odd:
        raise UserError(f"models.unet: channels must be multiples of head_channels {head_channels}, got {odd[0]}")
    if (attention == "none") != (context == 0):
        wanted = "no context" if attention == "none" else "the width of its context"
        raise UserError(f"models.unet: attention {attention!r} wants {wanted}, got context {context}")


def _groups(channels: list[int]) -> int:
    """Groups of the normalisations: at most 32, of four channels or more where that is possible."""
    shared = math.gcd(*channels)
    fitting = [count for count in range(1, 33) if shared % count == 0]
    return max((count for count in fitting if shared // count >= 4), default=1)
