"""Clips to latents and latents to clips: a few frames at a time, and large frames in tiles.

Beside the clip itself, only what the autoencoder makes of one slice is in memory, however long the clip is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Autoencoder, Context, Latents, UserError, Video, node
from mezzotint_models.overlapping import blending_weights, even_starts
from mezzotint_models.pixels import SPACE

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["decode_video", "encode_video", "to_video", "to_video_latents"]

# Larger slices are no faster, and need more memory: about 2.5 KiB a pixel.
_PIXELS_AT_ONCE = 1 << 18

Slice = Annotated[int, Field(ge=1, le=4096)]
Side = Annotated[int, Field(ge=8, le=16384)]
Overlap = Annotated[int, Field(ge=0, le=8192)]
Rate = Annotated[float, Field(gt=0, le=1000)]


@node("models.encode_video", device=True)
def encode_video(
    ctx: Context,
    autoencoder: Autoencoder,
    video: Video,
    *,
    at_once: Slice | None = None,
    tile: Side | None = None,
    overlap: Overlap = 64,
) -> Latents:
    """Encode clips frame by frame, [B, C, F, H, W], in the denoiser's scaled space, at the mode of the posterior.

    autoencoder: of the checkpoint that samples.
    video: [B, F, H, W, C], C = 3, or 1, which counts as three equal channels; H and W multiples of the
    autoencoder's downscale.
    at_once: frames that go through the autoencoder together; without it as many as make a quarter of a megapixel.
    tile: the side in pixels of the tiles that larger frames are cut into, so that a frame needs no more memory
    than a tile; null encodes whole frames. An autoencoder sees all of a picture at once, so that tiles are near
    to the whole, not equal to it.
    overlap: of two tiles, in pixels, over which one goes into the other.

    Raises: UserError: no frames, sizes that do not divide, four channels, an overlap that is no smaller than half
    a tile.
    """
    import torch

    step, (batch, frames, height, width, channels) = autoencoder.downscale, video.data.shape
    if frames == 0 or batch == 0:
        raise UserError(f"models.encode_video: the clip has no frames: {list(video.data.shape)}")
    if channels == 4:
        raise UserError(
            "models.encode_video: the clip has an alpha channel; load it with channels 3, or composite it"
        )
    if height % step or width % step:
        raise UserError(
            f"models.encode_video: the frames are {width}x{height}, wanted multiples of {step}; image.load_video "
            f"with width {max(1, width // step) * step} and height {max(1, height // step) * step} makes them fit"
        )
    cut = _tiles_in_latents("models.encode_video", tile, overlap, step)
    model = ctx.realise(autoencoder)

    def run(rows: Tensor) -> Tensor:
        rows = rows.expand(-1, -1, -1, 3) if channels == 1 else rows
        return _tiled(model.encode, rows, cut, (height // step, width // step), step, into_pixels=False)

    result: Tensor | None = None
    for clip, first, last in _slices(ctx, batch, frames, at_once, _pixels(height, width, tile)):
        done = run(video.data[clip, first:last])
        if result is None:
            result = torch.empty(batch, done.shape[1], frames, *done.shape[2:], dtype=done.dtype, device="cpu")
        result[clip, :, first:last] = done.transpose(0, 1).cpu()
    assert result is not None
    return Latents(result, space=autoencoder.space, downscale=step)


@node("models.decode_video", device=True)
def decode_video(
    ctx: Context,
    autoencoder: Autoencoder,
    latents: Latents,
    *,
    fps: Rate = 8.0,
    at_once: Slice | None = None,
    tile: Side | None = None,
    overlap: Overlap = 64,
) -> Video:
    """Decode the latents of clips frame by frame, [B, F, H, W, 3], clamped to 0..1.

    autoencoder: of the checkpoint that sampled, or another of the same latent space.
    latents: [B, C, F, H, W], scaled; [B, C, H, W] counts as clips of one frame.
    fps: frames per second of the clip.
    at_once: frames that go through the autoencoder together; without it as many as make a quarter of a megapixel.
    tile: the side in pixels of the tiles that larger frames are made of, so that a frame needs no more memory
    than a tile; null decodes whole frames. Tiles are near to the whole, not equal to it.
    overlap: of two tiles, in pixels, over which one goes into the other.

    Raises: UserError: latents of another space, no frames, an overlap that is no smaller than half a tile.
    """
    import torch

    data = latents.data.unsqueeze(2) if latents.data.ndim == 4 else latents.data
    if data.ndim != 5 or 0 in data.shape:
        raise UserError(
            f"models.decode_video: wanted latents of clips, [B, C, F, H, W], got {list(latents.data.shape)}"
        )
    if latents.space and autoencoder.space and latents.space != autoencoder.space:
        raise UserError(
            f"models.decode_video: the latents are of space {latents.space!r}, the autoencoder's is "
            f"{autoencoder.space!r}: they come from different models"
        )
    if data.shape[1] != autoencoder.channels:
        raise UserError(f"models.decode_video: wanted {autoencoder.channels} channels, got {data.shape[1]}")
    batch, _, frames, high, wide = data.shape
    step = autoencoder.downscale
    cut = _tiles_in_latents("models.decode_video", tile, overlap, step)
    model = ctx.realise(autoencoder)
    result = torch.empty(batch, frames, high * step, wide * step, 3)
    for clip, first, last in _slices(ctx, batch, frames, at_once, _pixels(high * step, wide * step, tile)):
        rows = data[clip, :, first:last].transpose(0, 1)
        result[clip, first:last] = _tiled(model.decode, rows, cut, (high, wide), step, into_pixels=True).cpu()
    return Video(result, fps)


@node("models.to_video_latents")
def to_video_latents(video: Video) -> Latents:
    """Clips as latents [B, 3, F, H, W] of a denoiser of pixels, in -1..1.

    video: [B, F, H, W, C], C = 3, or 1, which counts as three equal channels.

    Raises: UserError: no frames, four channels.
    """
    pixels = video.data
    if 0 in pixels.shape:
        raise UserError(f"models.to_video_latents: the clip has no frames: {list(pixels.shape)}")
    if pixels.shape[-1] == 4:
        raise UserError("models.to_video_latents: the clip has an alpha channel; load it with channels 3")
    pixels = pixels.expand(-1, -1, -1, -1, 3)
    return Latents(pixels.movedim(-1, 1).contiguous() * 2 - 1, space=SPACE, downscale=1)


@node("models.to_video")
def to_video(latents: Latents, *, fps: Rate = 8.0) -> Video:
    """What a denoiser of pixels sampled, as clips [B, F, H, W, 3], clamped to 0..1.

    latents: [B, 3, F, H, W] of space "pixels"; [B, 3, H, W] counts as clips of one frame.
    fps: frames per second of the clip.

    Raises: UserError: an autoencoder's latents.
    """
    data = latents.data.unsqueeze(2) if latents.data.ndim == 4 else latents.data
    if latents.space not in ("", SPACE):
        raise UserError(
            f"models.to_video: the latents are of space {latents.space!r}, which an autoencoder decodes: take "
            "models.decode_video"
        )
    if data.ndim != 5 or data.shape[1] != 3 or 0 in data.shape:
        raise UserError(f"models.to_video: wanted [B, 3, F, H, W], got {list(latents.data.shape)}")
    return Video((data.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1).contiguous(), fps)


def _pixels(height: int, width: int, tile: int | None) -> int:
    """Of a frame, as far as the autoencoder sees them at once."""
    return height * width if tile is None else min(height, tile) * min(width, tile)


def _slices(
    ctx: Context, batch: int, frames: int, at_once: int | None, pixels: int
) -> Iterator[tuple[int, int, int]]:
    """(clip, first frame, one after the last) of each slice; reports progress after each."""
    rows = at_once or max(1, _PIXELS_AT_ONCE // pixels)
    for clip in range(batch):
        for first in range(0, frames, rows):
            last = min(first + rows, frames)
            yield clip, first, last
            ctx.progress(clip * frames + last, batch * frames)


def _tiles_in_latents(node: str, tile: int | None, overlap: int, step: int) -> tuple[int, int] | None:
    """Side and overlap of tiles in latents. Raises: UserError: not multiples of `step`, or too much overlap."""
    if tile is None:
        return None
    if tile % step or overlap % step:
        raise UserError(f"{node}: tile {tile} and overlap {overlap} must be multiples of {step}, the downscale")
    if overlap * 2 > tile:
        raise UserError(f"{node}: an overlap of {overlap} is over half a tile of {tile}")
    return tile // step, overlap // step


def _tiled(
    run: Callable[[Tensor], Tensor],
    rows: Tensor,
    cut: tuple[int, int] | None,
    size: tuple[int, int],
    step: int,
    *,
    into_pixels: bool,
) -> Tensor:
    """`run` on frames, whole or in tiles that go over into each other linearly.

    rows: pixels [F, H, W, C], or latents [F, C, h, w] if `into_pixels`. size: (h, w) in latents. cut: side and
    overlap of the tiles in latents.
    """
    if cut is None or max(size) <= cut[0]:
        return run(rows)
    total: Tensor | None = None
    grown = step if into_pixels else 1
    for top, high, down in _spans(size[0], *cut, grown):
        for left, wide, along in _spans(size[1], *cut, grown):
            coarse = (slice(top, top + high), slice(left, left + wide))
            fine = tuple(slice(part.start * step, part.stop * step) for part in coarse)
            done = run(rows[:, :, *coarse] if into_pixels else rows[:, *fine])
            weight = (down[:, None] * along).to(done)
            if into_pixels:
                weight, place = weight.unsqueeze(-1), (slice(None), *fine)
                shape = (size[0] * step, size[1] * step, done.shape[-1])
            else:
                shape, place = (done.shape[1], *size), (slice(None), slice(None), *coarse)
            total = done.new_zeros(len(done), *shape) if total is None else total
            total[place] += done * weight
    assert total is not None
    return total


def _spans(length: int, side: int, overlap: int, grown: int) -> list[tuple[int, int, Tensor]]:
    """(start, length, weights) of the tiles along one side, in latents; the weights of `grown` pixels each."""
    starts = even_starts(length, side, overlap)
    ends = [min(start + side, length) for start in starts]
    weights = blending_weights([s * grown for s in starts], [e * grown for e in ends], overlap * grown)
    return [(start, end - start, share) for start, end, share in zip(starts, ends, weights, strict=True)]
