"""The nodes that train PVDM: its autoencoder of planes, and the denoiser of planes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzotint import Autoencoder, NoiseSchedule, UserError, node
from mezzotint_models import Architecture
from mezzotint_training import Conditioner, Objective
from mezzotint_video.triplane_objectives import PlaneAutoencoderObjective, PlaneDiffusionObjective

__all__ = ["learn_plane_diffusion", "learn_planes", "plane_denoiser"]

Few = Annotated[int, Field(ge=1, le=64)]
Width = Annotated[int, Field(ge=4, le=4096)]
Share = Annotated[float, Field(ge=0, le=1)]


@node("video.learn_planes")
def learn_planes(
    *,
    frames: Annotated[int, Field(ge=1, le=256)] = 8,
    size: Annotated[int, Field(ge=8, le=1024)] = 32,
    patch: Annotated[int, Field(ge=1, le=64)] = 4,
    channels: Few = 8,
    width: Width = 64,
    encoder_blocks: Few = 2,
    decoder_blocks: Few = 3,
    heads: Few = 2,
    noise: Share = 0.05,
    l1: Annotated[float, Field(ge=0, le=100)] = 0.1,
) -> Objective:
    """Train the first stage of PVDM: a clip as three planes, over x and y, t and y, t and x.

    A place of the clip is read as the sum of one place of each plane. The paper adds LPIPS and two critics to the
    loss; there are none here.

    frames: of the clips that it codes; longer ones of the data set are cut at random.
    size: side of the frames; those of the data set are averaged down to it.
    patch: side of the squares that make one place.
    channels: numbers at each place of a plane.
    width: of the features.
    encoder_blocks, decoder_blocks: space-time blocks.
    heads: of every attention.
    noise: deviation of noise on the planes in training, whose numbers lie in -1..1: what a denoiser makes is never
        exact.
    l1: weight of the mean absolute error beside the squared one, both of pixels in -1..1.

    Raises: UserError: a size that the patch does not divide, a width that the heads do not; when training starts,
        clips that are too short or not square.
    Source: Yu et al. 2023 (PVDM), section 3.1.
    """
    if size % patch or width % heads:
        raise UserError(
            f"video.learn_planes: size {size} must be a multiple of patch {patch}, and width {width} one of heads "
            f"{heads}"
        )
    return PlaneAutoencoderObjective(
        frames, size, patch, channels, width, encoder_blocks, decoder_blocks, heads, noise, l1
    )


@node("video.plane_denoiser")
def plane_denoiser(
    autoencoder: Autoencoder,
    *,
    frames: Annotated[int, Field(ge=1, le=256)] = 8,
    side: Annotated[int, Field(ge=1, le=1024)] = 8,
    width: Width = 96,
    blocks: Few = 4,
    heads: Few = 4,
    context: Annotated[int, Field(ge=0, le=65536)] = 0,
    previous: bool = True,
    meet: bool = True,
) -> Architecture:
    """PVDM's denoiser before it is trained: one 2-D network for three planes, which meet in attention.

    It predicts the velocity, on a cosine schedule.

    autoencoder: of video.plane_autoencoder, whose planes it makes.
    frames, side: of the planes: frames of a clip, and places along a side of a frame (size / patch).
    width: of the features.
    blocks: of the network.
    heads: of the attention.
    context: width of the tokens of a text that it reads; 0 reads none.
    previous: whether it can be told of the clip before.
    meet: without it, the planes are made each by itself.

    Raises: UserError: a width that heads and 8 do not divide.
    Source: Yu et al. 2023 (PVDM), section 3.2.
    """
    if width % heads or width % 8:
        raise UserError(f"video.plane_denoiser: width {width} must be a multiple of 8 and of heads {heads}")
    config = {
        "channels": autoencoder.channels, "side": side, "frames": frames, "width": width, "blocks": blocks,
        "heads": heads, "context": context, "previous": previous, "meet": meet, "groups": 8,
    }  # fmt: skip
    return Architecture(
        cls="video.plane_denoiser", config=config, schedule=NoiseSchedule(kind="cosine", prediction="v"),
        channels=autoencoder.channels, sample_size=side, space=autoencoder.space, downscale=autoencoder.downscale,
    )  # fmt: skip


@node("video.learn_plane_diffusion")
def learn_plane_diffusion(
    architecture: Architecture,
    autoencoder: Autoencoder,
    conditioner: Conditioner | None = None,
    *,
    previous: Share = 0.3,
    drop: Share = 0.1,
) -> Objective:
    """Train PVDM's denoiser of planes: first clips and clips that follow one, jointly.

    architecture: of video.plane_denoiser.
    autoencoder: of video.plane_autoencoder, as the architecture's.
    conditioner: what it is told of a clip, such as training.condition_on_text; none is unconditional.
    previous: share of the clips that are the second half of a longer one, shown the planes of the first; the
        others are first halves, shown zeros.
    drop: share of the texts that are left out, for guidance.

    Raises: UserError: an architecture of another network or other planes; when training starts, clips shorter than
        two of the planes'.
    Source: Yu et al. 2023 (PVDM), sections 3.2 and 3.3.
    """
    if architecture.cls != "video.plane_denoiser":
        raise UserError(
            f"video.learn_plane_diffusion: wanted an architecture of video.plane_denoiser, got {architecture.cls}"
        )
    if architecture.space != autoencoder.space:
        raise UserError(
            "video.learn_plane_diffusion: this autoencoder is not the one that the architecture was made for: "
            "give both nodes the same"
        )
    return PlaneDiffusionObjective(architecture, autoencoder, conditioner, previous, drop)
