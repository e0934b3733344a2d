"""All pictures of a folder, as one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mezzotint import Image, UserError, node

__all__ = ["SUFFIXES", "load_folder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif")


@node("image.load_folder")
def load_folder(
    path: Path,
    *,
    size: Annotated[int, Field(ge=1, le=16384)] | None = None,
    most: Annotated[int, Field(ge=1, le=4096)] = 64,
) -> Image:
    """The pictures of a folder, by the order of their names, as a batch. Folders inside are not read.

    path: the folder.
    size: they are cut square at the middle and scaled to this side, in pixels; null leaves them, and they must be
        of one size.
    most: a folder with more pictures is refused.

    Raises: UserError: no folder, no picture in it or too many, one that cannot be read, sizes that differ.
    """
    from mezzotint_image.batches import batch
    from mezzotint_image.reading import load
    from mezzotint_image.resizing import resize

    if not path.is_dir():
        raise UserError(f"image.load_folder: {path.name} is not a folder")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    if not files:
        raise UserError(f"image.load_folder: no picture in {path.name}; read are {', '.join(SUFFIXES)}")
    if len(files) > most:
        raise UserError(f"image.load_folder: {len(files)} pictures in {path.name}, and at most {most} are wanted")
    found = [load(file).image for file in files]
    if size is not None:
        found = [resize(one, width=size, height=size, fit="crop").image for one in found]
    return batch(found)
