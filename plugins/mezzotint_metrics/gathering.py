"""Clips of several runs as one batch, for systems whose graphs make one clip at a time."""

from __future__ import annotations

from mezzotint import UserError, Video, node

__all__ = ["gather_clips"]


@node("metrics.gather_clips")
def gather_clips(videos: list[Video]) -> Video:
    """Put clips together as one batch, in their order.

    videos: [B, F, H, W, C] each, of one size, length and frame rate; flow.map over prompts gives such a list.
    Raises: UserError: none, or clips that differ in size, length or rate.
    """
    import torch

    if not videos:
        raise UserError("metrics.gather_clips: wanted at least one clip, got none")
    first = videos[0]
    for number, video in enumerate(videos):
        if video.data.ndim != 5 or video.data.shape[1:] != first.data.shape[1:] or video.fps != first.fps:
            raise UserError(
                f"metrics.gather_clips: wanted clips of one size, length and rate; number {number} has "
                f"{list(video.data.shape)} at {video.fps:g} frames per second, the first {list(first.data.shape)} "
                f"at {first.fps:g}"
            )
    return Video(torch.cat([video.data for video in videos]), first.fps)
