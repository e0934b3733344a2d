"""Frames out of animated pictures (GIF, WebP, PNG, AVIF) with Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

from mezzotint import UserError
from mezzotint_image.reading import open_picture
from mezzotint_image.taking import Shown, Stream, Taking

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["animation"]

_KINDS = "MP4, WebM, GIF, WebP, PNG, AVIF or a folder of pictures"
# A delay of nothing is shown so long by browsers.
_NO_DELAY = Fraction(1, 10)


def animation(file: BinaryIO, rate: float, wanted: Taking) -> Stream:
    """The frames of a picture. rate: frames per second if it is a single one.

    Raises: UserError: as `load_video`; also while the frames are read.
    """
    try:
        picture = open_picture(file, wanted.name, wanted.max_pixels)
    except UserError as error:
        if "not a picture" not in str(error):
            raise
        raise UserError(f"{wanted.name}: not a clip of a kind that is read: {_KINDS}") from error
    if not getattr(picture, "is_animated", False):
        return Stream(_single(picture, rate, wanted), Fraction(rate).limit_denominator(100_000))
    if picture.format != "GIF":  # whose frames are counted by reading all of them
        wanted.check_length(getattr(picture, "n_frames", 1), None)
    return Stream(_frames(picture, wanted), None)


def _single(picture: Any, rate: float, wanted: Taking) -> Iterator[Shown]:
    yield Shown(_pixels(picture, 0, wanted), Fraction(0), 1 / Fraction(rate).limit_denominator(100_000))


def _frames(picture: Any, wanted: Taking) -> Iterator[Shown]:
    time, index = Fraction(0), 0
    while True:
        try:
            picture.seek(index)
        except EOFError:
            break
        except (OSError, ValueError, SyntaxError, IndexError) as error:
            raise UserError(f"{wanted.name}: damaged or cut short at frame {index}: {error}") from error
        pixels = _pixels(picture, index, wanted)
        # Known only now: some formats read it with the frame.
        seconds = Fraction(float(picture.info.get("duration") or 0)).limit_denominator(100_000) / 1000
        seconds = seconds if seconds > 0 else _NO_DELAY
        yield Shown(pixels, time, seconds)
        time, index = time + seconds, index + 1


def _pixels(picture: Any, index: int, wanted: Taking) -> Tensor:
    """[H, W, C] uint8."""
    import numpy
    import torch

    wanted.check_size(*picture.size)
    try:
        picture.load()
        array = numpy.array(picture.convert("RGB" if wanted.channels == 3 else "RGBA"))
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise UserError(f"{wanted.name}: damaged or cut short at frame {index}: {error}") from error
    return torch.from_numpy(array)
