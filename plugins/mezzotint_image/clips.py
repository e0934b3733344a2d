"""Between clips and pictures: frames of a clip, a clip of pictures, a sheet to look at, another frame rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mezzotint import Image, UserError, Video, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_clip", "contact_strip", "frames", "resample_video", "to_video"]

Rate = Annotated[float, Field(gt=0, le=1000)]
_MAX_FRAMES = 1 << 16


@node("image.frames")
def frames(
    video: Video,
    *,
    index: int = 0,
    count: Annotated[int, Field(ge=1)] | None = 1,
    every: Annotated[int, Field(ge=1)] = 1,
) -> Image:
    """Frames of clips as pictures [B * count, H, W, C], a clip's own one after the other.

    video: [B, F, H, W, C].
    index: of the first one, from 0; negative counts from the end.
    count: how many; null takes all that follow.
    every: 2 takes every other one, and so on.

    Raises: UserError: the clip has fewer.
    """
    check_clip("image.frames", video)
    total = video.data.shape[1]
    start = index + total if index < 0 else index
    if not 0 <= start < total:
        raise UserError(f"image.frames: frame {index} is wanted, but the clip has {total}")
    count = -(-(total - start) // every) if count is None else count
    last = start + (count - 1) * every
    if last >= total:
        raise UserError(
            f"image.frames: {count} from {index} on, every {every}, ends at frame {last}; the clip has {total}, "
            "counted from 0"
        )
    return Image(video.data[:, start : last + 1 : every].flatten(0, 1).contiguous())


@node("image.to_video")
def to_video(image: Image, *, fps: Rate = 8.0, clips: Annotated[int, Field(ge=1, le=4096)] = 1) -> Video:
    """Pictures as clips [B, F, H, W, C]: all of them one clip, or as many of equal length.

    image: [N, H, W, C], in order; one picture is a clip of one frame.
    fps: frames per second.
    clips: how many clips they are: the first N / clips pictures are the first one.

    Raises: UserError: no pictures, or a number that does not divide.
    """
    count = image.data.shape[0]
    if not count:
        raise UserError("image.to_video: wanted at least one picture, got none")
    if count % clips:
        raise UserError(f"image.to_video: {count} pictures are not {clips} clips of equal length")
    return Video(image.data.reshape(clips, count // clips, *image.data.shape[1:]), fps)


@node("image.resample_video")
def resample_video(
    video: Video,
    *,
    fps: Rate | None = None,
    frames: Annotated[int, Field(ge=1, le=_MAX_FRAMES)] | None = None,
    method: Literal["nearest", "linear"] = "nearest",
) -> Video:
    """The same clips at another frame rate, or in another number of frames over the same time.

    video: [B, F, H, W, C].
    fps: frames per second afterwards; the number of frames follows.
    frames: how many frames afterwards; the rate follows. With both, the rate is `fps`, and the clip is slower
    or faster.
    method: "nearest" shows at each time the frame that was shown then; "linear" mixes the two whose middles are
    nearest.

    Raises: UserError: no frames; a clip without a rate; more than 65536 frames.
    """
    check_clip("image.resample_video", video)
    total = video.data.shape[1]
    seconds = total / video.fps
    count = frames if frames is not None else max(1, round(seconds * (fps or video.fps)))
    if count > _MAX_FRAMES:
        raise UserError(
            f"image.resample_video: {seconds:g} s at {fps:g} frames per second are {count} frames; at most "
            f"{_MAX_FRAMES} are made"
        )
    rate = fps if fps is not None else count / seconds
    if rate > 1000:
        raise UserError(f"image.resample_video: {count} frames in {seconds:g} s are {rate:g} a second, over 1000")
    return Video(_resampled(video.data, count, method), rate)


@node("image.contact_strip")
def contact_strip(
    video: Video,
    *,
    columns: Annotated[int, Field(ge=1, le=1000)] | None = None,
    every: Annotated[int, Field(ge=1)] = 1,
    labels: Literal["frame", "seconds", "none"] = "none",
    cell: Annotated[int, Field(ge=8, le=8192)] | None = None,
    margin: Annotated[int, Field(ge=0, le=1024)] = 2,
    background: str = "white",
) -> Image:
    """Clips to look at: their frames side by side on one sheet [1, H, W, 3], each clip on a row of its own.

    video: [B, F, H, W, C].
    columns: frames in a row; without it as many as a clip shows.
    every: 2 shows every other frame, and so on.
    labels: what stands under each frame: its number, its time, or nothing.
    cell: the longer side of the frames in pixels (enlarged with hard pixels); without it they keep their size.
    margin: pixels between frames and around them.
    background: a CSS name or #rrggbb.

    Raises: UserError: no frames; a sheet of more than 2**28 pixels.
    """
    from mezzotint_image.sheet import contact_sheet

    check_clip("image.contact_strip", video)
    shown = range(0, video.data.shape[1], every)
    texts: list[str | int | float] | None = None
    if labels != "none":
        one: list[str | int | float] = [i if labels == "frame" else f"{i / video.fps:.2f} s" for i in shown]
        texts = one * video.data.shape[0]
    return contact_sheet(
        [Image(clip[::every]) for clip in video.data],
        columns=columns or min(len(shown), 1000), labels=texts, cell=cell, margin=margin, background=background,
    )  # fmt: skip


def check_clip(node: str, video: Video) -> None:
    """Raises: UserError: no frames, or a frame rate that is none."""
    if video.data.ndim != 5 or 0 in video.data.shape:
        raise UserError(f"{node}: wanted clips [B, F, H, W, C] with frames, got {list(video.data.shape)}")
    if not math.isfinite(video.fps) or not 0 < video.fps <= 1000:
        raise UserError(f"{node}: the clip's frame rate is {video.fps}; wanted above 0, at most 1000")


def _resampled(data: Tensor, count: int, method: str) -> Tensor:
    """[B, F, ...] to [B, count, ...] over the same time: frame k stands for k..k+1 of the count-th parts."""
    import torch

    total = data.shape[1]
    if count == total:
        return data
    if method == "nearest":
        # What was shown when the new frame begins: whole numbers, so that no rounding moves a frame.
        return data[:, torch.arange(count) * total // count].contiguous()
    middle = ((torch.arange(count, dtype=torch.float64) + 0.5) * total / count - 0.5).clamp(0, total - 1)
    below = middle.floor().long()
    share = (middle - below).to(data.dtype).reshape(-1, 1, 1, 1)
    made = data.new_empty(data.shape[0], count, *data.shape[2:])
    for frame in range(count):
        low = int(below[frame])
        made[:, frame] = torch.lerp(data[:, low], data[:, min(low + 1, total - 1)], share[frame])
    return made
