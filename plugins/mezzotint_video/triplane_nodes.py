"""The nodes that sample with PVDM: its autoencoder, clips to planes and back, and one clip after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Autoencoder, Conditioning, Context, Latents, Source, UserError, Video, Weights, node

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint_video.triplane_model import PlaneModel

__all__ = ["continue_clip", "decode_planes", "empty_planes", "encode_planes", "plane_autoencoder", "plane_model"]


@node("video.plane_autoencoder")
def plane_autoencoder(
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    part: Annotated[str, Field(max_length=200)] = "",
) -> Autoencoder:
    """PVDM's autoencoder, between clips and three planes, from its file or from what training gave.

    weights: what video.learn_planes gave; in its place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several could be meant.
    Raises: UserError: both or neither are given; no autoencoder of planes in there; a damaged or foreign file.
    """
    from mezzotint_models import recipe_for, record_of

    meta, recipe = recipe_for("planes", weights, source, part, node="video.plane_autoencoder")
    record = record_of(meta, "planes")
    try:
        return Autoencoder(
            **recipe, loader="video.planes", channels=int(record["channels"]), downscale=int(record["downscale"]),
            space=str(record["space"]), scale=float(record["scale"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"video.plane_autoencoder: the weights' record 'planes' is damaged: {error!r}") from error


@node("video.encode_planes", device=True)
def encode_planes(ctx: Context, autoencoder: Autoencoder, video: Video) -> Latents:
    """Clips as three planes each, one below the other: [B, C, S + 2 F, S], the rows of xy, yt and xt.

    autoencoder: of video.plane_autoencoder.
    video: with as many frames as it holds, square, of its size or a multiple, which is averaged down.

    Raises: UserError: another autoencoder; clips of another length or shape.
    """
    import torch

    model = plane_model(ctx, autoencoder, "video.encode_planes")
    made = []
    with torch.no_grad():
        for number, clip in enumerate(video.data):
            made.append(model.encode(clip[None]).float())
            ctx.progress(number + 1, len(video.data))
    return Latents(torch.cat(made), space=autoencoder.space, downscale=autoencoder.downscale)


@node("video.decode_planes", device=True)
def decode_planes(
    ctx: Context,
    autoencoder: Autoencoder,
    clips: Annotated[list[Latents], Field(min_length=1)],
    *,
    fps: Annotated[float, Field(gt=0, le=240)] = 16.0,
    enlarge: Annotated[int, Field(ge=1, le=16)] = 1,
) -> Video:
    """Clips from planes, [B, F, S, S, 3]; several one after the other.

    autoencoder: of video.plane_autoencoder.
    clips: the planes of each, of video.encode_planes or sampled by a denoiser of that space; all of as many clips.
    fps: frames per second.
    enlarge: the frames' sides times this, bilinearly.

    Raises: UserError: another autoencoder, or latents of another space or shape.
    """
    import torch

    model = plane_model(ctx, autoencoder, "video.decode_planes")
    wanted, count = _shape(model), len(clips[0].data)
    for number, latents in enumerate(clips):
        if latents.space and latents.space != autoencoder.space:
            raise UserError(
                f"video.decode_planes: the latents are of space {latents.space!r}, the autoencoder's is "
                f"{autoencoder.space!r}: they come from different models"
            )
        if tuple(latents.data.shape) != (count, *wanted):
            raise UserError(
                f"video.decode_planes: wanted latents {[count, *wanted]}, got {list(latents.data.shape)} as "
                f"number {number}"
            )
    made = []
    with torch.no_grad():
        for row in range(count):
            parts = [model.decode(latents.data[row : row + 1]) for latents in clips]
            made.append(_larger(torch.cat(parts, dim=1), enlarge))
            ctx.progress(row + 1, count)
    return Video(torch.cat(made), fps)


@node("video.empty_planes", device=True)
def empty_planes(
    ctx: Context, autoencoder: Autoencoder, *, count: Annotated[int, Field(ge=1, le=1024)] = 1
) -> Latents:
    """Latents of zeros of the shape that this autoencoder's planes have, to sample from nothing.

    autoencoder: of video.plane_autoencoder.
    count: how many clips.

    Raises: UserError: another autoencoder.
    """
    import torch

    model = plane_model(ctx, autoencoder, "video.empty_planes")
    data = torch.zeros(count, *_shape(model))
    return Latents(data, space=autoencoder.space, downscale=autoencoder.downscale)


@node("video.continue_clip")
def continue_clip(conditioning: Conditioning, latents: Latents) -> Conditioning:
    """Tell PVDM's denoiser which clip comes before: what it samples then goes on from there.

    Give it to the conditioning and to what guidance goes away from. Without this node the denoiser makes a first
    clip, which is the same as after zeros. Chained, each clip after the last, it makes a clip of any length.

    conditioning: the text.
    latents: the planes of the clip before, sampled or from video.encode_planes.

    Raises: UserError: numbers of clips that do not go together, or a conditioning with side channels already.
    """
    count = len(latents.data)
    if conditioning.concat is not None:
        raise UserError(
            "video.continue_clip: the conditioning has a clip before it already; give the text's own conditioning"
        )
    if conditioning.context is not None and len(conditioning.context) not in (1, count):
        raise UserError(
            f"video.continue_clip: the conditioning is for {len(conditioning.context)} clips, and the planes "
            f"of {count}; give it one row, or one for each"
        )
    return conditioning.replace(concat=latents.data.float())


def plane_model(ctx: Context, autoencoder: Autoencoder, who: str) -> PlaneModel:
    """Raises: UserError: the autoencoder is one of pictures."""
    from mezzotint_video.triplane_model import PlaneModel

    model = ctx.realise(autoencoder)
    if not isinstance(model, PlaneModel):
        raise UserError(f"{who}: wanted the autoencoder of video.plane_autoencoder, got one of pictures")
    return model


def _larger(video: Tensor, factor: int) -> Tensor:
    """[B, F, factor H, factor W, 3]."""
    from torch.nn.functional import interpolate

    if factor == 1:
        return video
    frames = video.flatten(0, 1).movedim(-1, 1)
    large = interpolate(frames, scale_factor=factor, mode="bilinear", align_corners=False)
    return large.movedim(1, -1).unflatten(0, video.shape[:2]).contiguous()


def _shape(model: PlaneModel) -> tuple[int, int, int]:
    config, side = model.module.config, model.module.side
    return int(config["channels"]), side + 2 * int(config["frames"]), side
