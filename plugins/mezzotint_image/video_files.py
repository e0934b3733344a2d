"""Clips to MP4 and WebM with PyAV.

On one thread, so that the bytes do not depend on the machine's cores.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from mezzotint import UserError
from mezzotint_image.pixels import to_bytes

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

__all__ = ["encode_video"]

_CODECS = {"mp4": "libx264", "webm": "libvpx-vp9"}


def encode_video(clip: Tensor, fps: float, suffix: str, quality: int) -> bytes:
    """Encode one clip, frame after frame. clip: [F, H, W, C] in 0..1, at least one frame; quality: 0..100.

    Colour is 4:2:0, which every player reads. An odd side is padded by repeating its last row or column.
    Raises: UserError: frames with an alpha channel.
    """
    if clip.shape[-1] == 4:
        raise UserError(f"{suffix} has no alpha channel: write the clip as webp")
    # A real file: moving the index to the front, for playing while loading, reads the clip back.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"clip.{suffix}")
        _mux(clip, Fraction(fps).limit_denominator(1001), path, suffix, quality)
        return path.read_bytes()


def _even(frame: Tensor) -> numpy.ndarray:
    """One frame [H, W, C] as [H, W, 3] uint8 of even sides."""
    import numpy

    array = to_bytes(frame)
    if array.shape[-1] == 1:
        array = numpy.repeat(array, 3, axis=-1)
    height, width = array.shape[:2]
    if height % 2 or width % 2:
        array = numpy.pad(array, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return numpy.ascontiguousarray(array)


def _mux(clip: Tensor, rate: Fraction, path: Path, suffix: str, quality: int) -> None:
    import av

    options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if suffix == "mp4" else {})
    with av.open(path, "w", format=suffix, options=options) as container:
        stream = container.add_stream(_CODECS[suffix], rate=rate, options=_codec_options(suffix, quality))
        height, width = clip.shape[1:3]
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_even(frame), format="rgb24")))
        container.mux(stream.encode(None))


def _codec_options(suffix: str, quality: int) -> dict[str, str]:
    if suffix == "mp4":
        # crf 51 is the worst, 0 lossless; 80 gives 18, which looks lossless.
        return {
            "crf": str(round(50 - quality * 0.4)),
            "preset": "medium",
            "threads": "1",
            "flags": "+bitexact",
        }
    return {
        "crf": str(round(63 - quality * 0.5)),
        "b": "0",
        "cpu-used": "4",
        "threads": "1",
        "flags": "+bitexact",
    }
