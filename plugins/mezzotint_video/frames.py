"""Clips of latents cut and put together along time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzotint import Latents, UserError, node

__all__ = ["join_frames", "take_frames"]


@node("video.take_frames")
def take_frames(
    latents: Latents,
    *,
    start: Annotated[int, Field(ge=0, le=65535)] = 0,
    count: Annotated[int, Field(ge=1, le=65536)] | None = None,
    last: bool = False,
) -> Latents:
    """Some neighbouring frames of clips.

    latents: [B, C, F, h, w].
    start: the first of them.
    count: how many; without it all that follow.
    last: count from the end: start is then how many are left out there.

    Raises: UserError: latents of pictures, frames that are not there.
    """
    data = latents.data
    if data.ndim != 5:
        raise UserError(f"video.take_frames: wanted clips [B, C, F, h, w], got {list(data.shape)}")
    frames = data.shape[2]
    length = frames - start if count is None else count
    first = frames - start - length if last else start
    if first < 0 or length < 1 or first + length > frames:
        raise UserError(
            f"video.take_frames: frames {first} to {first + length - 1} were asked for, and there are 0 to "
            f"{frames - 1}"
        )
    return latents.replace(data=data[:, :, first : first + length].contiguous(), mask=None)


@node("video.join_frames")
def join_frames(
    clips: Annotated[list[Latents], Field(min_length=1)], *, overlap: Annotated[int, Field(ge=0, le=65535)] = 0
) -> Latents:
    """Clips one after the other.

    clips: of one size and space.
    overlap: so many of the first frames of each following clip are the last ones of the clip before, and are left
    out.

    Raises: UserError: clips that do not fit together, or are no longer than the overlap.
    """
    import torch

    first = clips[0]
    for number, clip in enumerate(clips):
        same = clip.data.ndim == 5 and clip.space == first.space
        same = same and clip.data[:, :, 0].shape == first.data[:, :, 0].shape
        if not same:
            raise UserError(
                f"video.join_frames: clip {number} is {list(clip.data.shape)} in {clip.space!r}, the first one "
                f"{list(first.data.shape)} in {first.space!r}; wanted the same but for the number of frames"
            )
        if number and clip.data.shape[2] <= overlap:
            raise UserError(
                f"video.join_frames: clip {number} has {clip.data.shape[2]} frames, and {overlap} of them overlap"
            )
    parts = [clip.data if not number else clip.data[:, :, overlap:] for number, clip in enumerate(clips)]
    return first.replace(data=torch.cat(parts, dim=2), mask=None)
