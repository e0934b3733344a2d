"""`video.learn_frames`: the motion model of VIDM, which makes the next frame of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Autoencoder, UserError, node
from mezzotint_models import Architecture
from mezzotint_training import Conditioner, Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_video.frame_task import FrameTask

__all__ = ["FrameObjective", "learn_frames"]

Share = Annotated[float, Field(ge=0, le=1)]
Stride = Annotated[int, Field(ge=1, le=64)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True, eq=False)
class FrameObjective(Objective):
    """The next frame of a clip; fields as in `video.learn_frames`."""

    architecture: Architecture
    conditioner: Conditioner
    autoencoder: Autoencoder | None = None
    scale: float = 0.33
    weighting: Literal["simple", "min_snr", "p2"] = "p2"
    gamma: float = 1.0
    noise: float = 0.1
    strides: tuple[int, ...] = (1,)
    drop: float = 0.1
    focus: float = 0.0
    frozen: tuple[str, ...] = ()

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> FrameTask:
        from mezzotint_video.frame_task import FrameTask

        return FrameTask(self, ctx, reader, seed, batch)


@node("video.learn_frames")
def learn_frames(
    architecture: Architecture,
    conditioner: Conditioner,
    autoencoder: Autoencoder | None = None,
    *,
    scale: Annotated[float, Field(gt=0, le=100)] = 0.33,
    weighting: Literal["simple", "min_snr", "p2"] = "p2",
    gamma: Annotated[float, Field(gt=0, le=1e6)] = 1.0,
    noise: Share = 0.1,
    strides: Annotated[list[Stride], Field(min_length=1, max_length=16)] = [1],  # noqa: B006
    drop: Share = 0.1,
    focus: Share = 0.0,
    frozen: list[Name] | None = None,
) -> Objective:
    """Train the motion model of VIDM: a denoiser of the next frame, told the first frame and the one before.

    What it denoises is the change from the frame before, where the paper's is the frame: so it begins by holding
    the picture still, and has only what moves to learn. Each clip of a batch gives one frame, drawn at random.
    `video.next_frames` makes clips with what is trained.

    architecture: of models.unet, with cross attention to the words, two times the latents' channels and 2 for the
    flow as `extra`, and as `pooled` the width of the words and 16 for the time of the frame.
    conditioner: what it is told of a clip, as context; the words say the motion.
    autoencoder: whose latents it denoises, if it does not work in pixels.
    scale: of the changes, about their standard deviation: they are divided by it.
    weighting: of the noise levels: simple, the target's error as it is; min_snr, of Hang et al. 2023; p2, of Choi
    et al. 2022 with k = 1, which is VIDM's.
    gamma: of the weighting.
    noise: most noise on the frame before, its amount drawn for each clip from 0 to this: in sampling it is the
    model's own, with its errors.
    strides: how many of the data set's frames lie between two of the clip that is learnt from, one drawn at random
    each time: a clip of 15 frames is one of 8 at the stride 2 as well.
    drop: share of clips whose words are left out, for guidance.
    focus: share of the times where outlines are decided (sigma / alpha from 1 to 8).
    frozen: patterns of names of the network's parameters, such as "network.mid_block.*", that stay as they begin.

    Raises: UserError: an architecture with other side channels, or without cross attention.
    Source: Mei and Patel 2023, "VIDM: Video implicit diffusion models", section 3.
    """
    from mezzotint_video.frame_told import FRAME_VECTOR, channels_for

    config = architecture.config
    sizes = (channels_for(architecture.channels), int(config.get("context") or 0) + FRAME_VECTOR)
    got = (config.get("extra"), config.get("pooled"))
    if config.get("attention") != "cross" or got != sizes:
        raise UserError(
            f"video.learn_frames: wanted models.unet with attention cross, extra {sizes[0]} and pooled "
            f"{sizes[1]}, got {config.get('attention')}, {got[0]} and {got[1]}"
        )
    if (architecture.space == "pixels") != (autoencoder is None):
        raise UserError(
            f"video.learn_frames: the architecture works in {architecture.space!r}: give this node and "
            "models.unet the same autoencoder, or neither"
        )
    return FrameObjective(
        architecture, conditioner, autoencoder, scale=scale, weighting=weighting, gamma=gamma,
        noise=noise, strides=tuple(strides), drop=drop, focus=focus, frozen=tuple(frozen or ()),
    )  # fmt: skip
