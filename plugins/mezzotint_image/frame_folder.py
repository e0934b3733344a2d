"""A clip as a folder of pictures, one a frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mezzotint import UserError
from mezzotint_image.folder import SUFFIXES
from mezzotint_image.reading import decode_picture
from mezzotint_image.taking import Shown, Stream, Taking

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["frame_folder"]


def frame_folder(path: Path, rate: float, wanted: Taking) -> Stream:
    """The pictures of a folder in order: "frame2.png" before "frame10.png".

    rate: frames per second. Raises: UserError: as `load_video`; also while the frames are read.
    """
    found = (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    files = sorted(islice(found, 64 * wanted.most + 1), key=_order)
    if not files:
        raise UserError(f"{path.name}: no picture in the folder; read are {', '.join(SUFFIXES)}")
    wanted.check_length(len(files), len(files) / rate)
    exact = Fraction(rate).limit_denominator(100_000)
    return Stream(_frames(files, exact, wanted), exact)


def _order(file: Path) -> tuple[list[tuple[int, int | str]], str]:
    parts = re.split(r"(\d+)", file.name)
    return [(1, int(p)) if i % 2 else (0, p) for i, p in enumerate(parts)], file.name


def _frames(files: list[Path], rate: Fraction, wanted: Taking) -> Iterator[Shown]:
    for index, file in enumerate(files):
        yield Shown(_pixels(file, wanted), index / rate, 1 / rate)


def _pixels(file: Path, wanted: Taking) -> Tensor:
    """[H, W, C] float32."""
    import torch

    colour, alpha = decode_picture(file, file.name, wanted.max_pixels)
    colour = colour.expand(-1, -1, 3)
    return colour if wanted.channels == 3 else torch.cat([colour, alpha.unsqueeze(-1)], dim=-1)
