"""Clips from files and folders: strangers' ones, so every way of being wrong ends in a clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mezzotint import UserError, Video, node
from mezzotint_image.clips import Rate
from mezzotint_image.resizing import Side

__all__ = ["load_video"]


@node("image.load_video")
def load_video(
    path: Path,
    *,
    fps: Rate | None = None,
    start: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0,
    frames: Annotated[int, Field(ge=1, le=1 << 20)] | None = None,
    width: Side | None = None,
    height: Side | None = None,
    fit: Literal["stretch", "crop", "pad", "inside"] = "crop",
    channels: Literal[3, 4] = 3,
    rate: Rate = 8.0,
    most: Annotated[int, Field(ge=1, le=1 << 20)] = 1024,
    max_pixels: Annotated[int, Field(ge=1, le=1 << 36)] = 1 << 27,
) -> Video:
    """Load a clip, [1, F, H, W, C]: MP4 or WebM, an animated GIF, WebP or PNG, or a folder of pictures.

    Read are MP4 (MOV) and WebM (Matroska) with the codecs that are usual there, what image.load reads with all its
    frames, and folders, whose pictures are taken by name, numbers in it as numbers. Frames are turned upright as
    the file says; sound is left out.

    path: the file or the folder.
    fps: the frame rate wanted: at each time the frame is taken that was shown then. Null takes the frames as they
    are, at the file's own rate; an animation whose frames last several times as long as its shortest one has
    them repeated.
    start: seconds from the beginning that are left out.
    frames: at most so many are taken, and the rest of the file is not read; null takes all.
    width, height: of the frames in pixels, each scaled as it is read; a missing one follows from the aspect ratio,
    both missing keep the size.
    fit: how sizes of another aspect ratio are met, as in image.resize.
    channels: 3 colour without alpha, 4 colour and alpha.
    rate: frames per second of a folder or of a single picture, which have none of their own.
    most: a clip that gives more frames is refused, unless `frames` cuts it.
    max_pixels: frames of more pixels are refused before they are decoded, and clips of more pixels, all frames
    together, before they are in memory.

    Raises: UserError: no clip, damaged, cut short, no frames (sound only, say), a codec that is not read, sizes
    that change in mid-clip, a frame rate that is none, too large.
    """
    from mezzotint_image.animations import animation
    from mezzotint_image.containers import container, container_format
    from mezzotint_image.frame_folder import frame_folder
    from mezzotint_image.taking import Taking

    wanted = Taking(
        path.name, fps=fps, start=start, frames=frames, most=most, max_pixels=max_pixels,
        width=width, height=height, fit=fit, channels=channels,
    )  # fmt: skip
    if path.is_dir():
        return wanted.take(frame_folder(path, rate, wanted))
    try:
        with path.open("rb") as file:
            form = container_format(file.read(64))
            file.seek(0)
            source = container(file, form, wanted) if form else animation(file, rate, wanted)
            return wanted.take(source)
    except OSError as error:
        raise UserError(f"{path.name}: cannot be read: {error.strerror or error}") from error
