"""A clip with the format of its file: what a graph gives out that is not to be MP4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from mezzotint import UserError, Video, node
from mezzotint_image.clips import check_clip

__all__ = ["FormattedVideo", "video_format", "write_formatted"]

Format = Literal["mp4", "webm", "gif", "webp", "frames"]


@dataclass(frozen=True, eq=False)
class FormattedVideo(Video):
    """Clips that are written in this format; everywhere else clips like others.

    quality: 0..100, or None for the format's own.
    """

    format: Format = "mp4"
    quality: int | None = None


@node("image.video_format")
def video_format(
    video: Video, *, format: Format, quality: Annotated[int, Field(ge=0, le=100)] | None = None
) -> FormattedVideo:
    """Say how clips are written when a graph gives them out; without it they become MP4.

    video: [B, F, H, W, C].
    format: "mp4" (H.264) and "webm" (VP9) pad odd sides to even ones and have no alpha; "gif" has 256 colours and
    times in hundredths of a second; "webp" is animated, without loss unless `quality` is given, and has alpha;
    "frames" is a folder of PNG pictures, which image.load_video reads.
    quality: of mp4, webm and webp, 100 the best; null is 80, and no loss for webp.

    Raises: UserError: no frames, no frame rate, alpha in a format that has none, a quality where none is chosen.
    """
    check_clip("image.video_format", video)
    if quality is not None and format in ("gif", "frames"):
        raise UserError(f"image.video_format: {format} has no quality to choose; leave it out")
    if video.data.shape[-1] == 4 and format in ("mp4", "webm"):
        raise UserError(f"image.video_format: {format} has no alpha channel; webp and frames have one")
    return FormattedVideo(video.data, video.fps, format, quality)


def write_formatted(video: FormattedVideo, info: Any = None) -> dict[str, bytes]:
    """The files of the clips by their names in the output's folder."""
    from types import SimpleNamespace

    from mezzotint_image.pixels import to_pillow
    from mezzotint_image.writers import still, write_video

    numbers = [f"-{index:03}" if len(video.data) > 1 else "" for index in range(len(video.data))]
    if video.format == "frames":
        return {
            f"clip{number}/frame-{index:05}.png" if number else f"frame-{index:05}.png": still(
                to_pillow(frame), "png", {}
            )
            for number, clip in zip(numbers, video.data, strict=True)
            for index, frame in enumerate(clip)
        }
    options = {} if video.quality is None else {"quality": video.quality}
    files = write_video(video, SimpleNamespace(suffix=video.format, options=options))
    return {f"clip{number}.{video.format}": file for number, file in zip(numbers, files, strict=True)}
