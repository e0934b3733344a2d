"""A folder of pictures as a data set: read and checked once, so that training meets no surprise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Context, Dataset, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PictureReader", "open_pictures", "pictures", "square"]

READER = "training.pictures"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif"})
LARGEST = 1 << 31  # bytes of a data set that travels as one value


class PictureReader:
    """Items of a data set that `training.pictures` made."""

    def __init__(self, dataset: Dataset) -> None:
        self.pictures: Tensor = dataset.config["pictures"]
        self.captions: list[str] = list(dataset.config["captions"])

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """ "image": [size, size, 3] uint8; "caption": str."""
        return {"image": self.pictures[index].numpy(), "caption": self.captions[index]}

    def caption(self, index: int) -> str:
        """The caption alone."""
        return self.captions[index]


def open_pictures(dataset: Dataset, ctx: Context) -> PictureReader:
    """The loader of reader "training.pictures"."""
    return PictureReader(dataset)


@node("training.pictures")
def pictures(ctx: Context, folder: Path, *, size: Annotated[int, Field(ge=4, le=1024)] = 64) -> Dataset:
    """A folder of pictures, cut square at the middle and scaled, with their captions if it has any.

    Captions are in a .txt beside each picture, or in one metadata.jsonl, metadata.csv, captions.jsonl or
    captions.csv with file_name and caption (or text). Folders inside are read too; hidden files are not.

    folder: of the pictures. All are read now, and travel with the value.
    size: the side that they are scaled to, in pixels.

    Raises: UserError: no picture, one that cannot be read, one caption too few or too many, more than 2 GiB.
    """
    import torch

    from mezzotint_training.captions import read_captions

    if not folder.is_dir():
        raise UserError(f"training.pictures: {folder.name} is not a folder")
    names = _names(folder)
    if not names:
        raise UserError(f"training.pictures: no picture in {folder.name}; read are {', '.join(sorted(SUFFIXES))}")
    if len(names) * 3 * size**2 > LARGEST:
        raise UserError(
            f"training.pictures: {len(names)} pictures of {size}x{size} are more than 2 GiB; take a smaller size"
        )
    captions = read_captions(folder, names)
    read = torch.empty((len(names), size, size, 3), dtype=torch.uint8)
    for index, name in enumerate(names):
        try:
            read[index] = _square(folder / name, size)
        except UserError as error:
            raise UserError(f"training.pictures: {name!r} cannot be read: {error}") from error
        ctx.progress(index + 1, len(names))
    return Dataset(READER, {"pictures": read, "captions": captions}, len(names))


def _names(folder: Path) -> list[str]:
    """The pictures' paths inside the folder, sorted."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _square(file: Path, size: int) -> Tensor:
    from mezzotint_image import load

    return square(load(file).image.data, size)


def square(data: Tensor, size: int) -> Tensor:
    """[size, size, 3] uint8, the middle of a picture [1, H, W, 3] in 0..1."""
    from torch.nn.functional import interpolate

    side = min(data.shape[1:3])
    top, left = ((n - side) // 2 for n in data.shape[1:3])
    middle = data[:, top : top + side, left : left + side].permute(0, 3, 1, 2)
    if side != size:
        middle = interpolate(middle, size=(size, size), mode="bicubic", antialias=True)
    return (middle[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte()
