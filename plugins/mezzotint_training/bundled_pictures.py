"""Two small real data sets that come along: handwritten digits, and Twemoji pictures with their names.

Each is one sheet of square tiles beside a table of captions and classes, in `data/`; ATTRIBUTION.md there says
where they come from and under which licences.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Context, Dataset, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["READER", "TileReader", "digits", "emoji", "open_tiles"]

READER = "training.tiles"
DATA = Path(__file__).parent / "data"
SHEETS = {"digits": "digits.png", "emoji": "emoji.webp"}
GROUPS = ("faces", "nature", "food", "activities", "objects", "places")

Side = Annotated[int, Field(ge=4, le=1024)]
Level = Annotated[int, Field(ge=0, le=255)]
Group = Literal["faces", "nature", "food", "activities", "objects", "places"]


class TileReader:
    """Items of a bundled sheet. label_names: the classes of their "label"."""

    def __init__(self, dataset: Dataset) -> None:
        config = dataset.config
        self.size = int(config["size"])
        self.pixels = _tiles(config["sheet"])
        self.background: list[int] = list(config["background"])
        table = _table(config["sheet"])
        wanted = config["classes"]
        self.label_names = tuple(name for name in table["classes"] if not wanted or name in wanted)
        self.rows = [
            (row, self.label_names.index(table["classes"][label]))
            for row, label in enumerate(table["labels"])
            if table["classes"][label] in self.label_names
        ]
        self.captions: Any = table["captions"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """ "image": [size, size, 3] uint8; "caption": str; "label": int."""
        import torch

        from mezzotint_training.picture_folder import square

        row, label = self.rows[index]
        tile = self.pixels[row].float() / 255
        colour, alpha = tile[..., :3], tile[..., 3:]
        on_ground = colour * alpha + (1 - alpha) * torch.tensor(self.background) / 255
        return {
            "image": square(on_ground[None], self.size).numpy(), "caption": self.caption(index), "label": label,
        }  # fmt: skip

    def caption(self, index: int) -> str:
        """The caption alone."""
        row, label = self.rows[index]
        if isinstance(self.captions, str):
            return self.captions.format_map({"class": self.label_names[label]})
        return self.captions[row]


def open_tiles(dataset: Dataset, ctx: Context) -> TileReader:
    """The loader of reader "training.tiles"."""
    return TileReader(dataset)


@node("training.digits")
def digits(*, size: Side = 32) -> Dataset:
    """1797 handwritten digits, white on black, with labels 0 to 9 and captions such as "a handwritten seven".

    size: the side that the 8x8 pictures are scaled to, in pixels.
    Source: E. Alpaydin and C. Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI (CC BY 4.0).
    """
    return _described("digits", size, [0, 0, 0], None)


@node("training.emoji")
def emoji(
    *,
    size: Side = 64,
    groups: Annotated[list[Group], Field(min_length=1)] | None = None,
    background: Annotated[list[Level], Field(min_length=3, max_length=3)] = [255, 255, 255],  # noqa: B006
) -> Dataset:
    """1026 pictures of Twemoji with their names as captions, such as "hot beverage": a real, drawn world.

    size: the side that the 64x64 pictures are scaled to, in pixels.
    groups: which are wanted; all, if null. The label of a picture is its place in this order: faces, nature, food,
        activities, objects, places.
    background: red, green and blue of the ground behind them, 0 to 255.
    Source: Twemoji, Twitter, Inc and other contributors (CC BY 4.0), by way of emoji-datasource-twitter 16.0.0.
    """
    return _described("emoji", size, background, groups)


def _described(sheet: str, size: int, background: list[int], classes: list[Any] | None) -> Dataset:
    table = _table(sheet)
    if classes is None:
        length = len(table["labels"])
    else:
        length = sum(table["classes"][label] in classes for label in table["labels"])
    config = {"sheet": sheet, "size": size, "background": list(background), "classes": sorted(set(classes or ()))}
    return Dataset(READER, config, length)


@cache
def _table(sheet: str) -> dict[str, Any]:
    """tile: side; columns; classes; labels: one for each picture; captions: the same, or one with {class}."""
    if sheet not in SHEETS:
        raise UserError(f"no bundled pictures {sheet!r}; there are {', '.join(SHEETS)}")
    table: dict[str, Any] = json.loads((DATA / f"{sheet}.json").read_text("utf-8"))
    return table


@cache
def _tiles(sheet: str) -> Tensor:
    """[N, tile, tile, 4] uint8."""
    import numpy
    import torch
    from PIL import Image as Pillow

    table = _table(sheet)
    side, columns = table["tile"], table["columns"]
    with Pillow.open(DATA / SHEETS[sheet]) as picture:
        pixels = torch.from_numpy(numpy.array(picture.convert("RGBA")))
    tiles = pixels.view(-1, side, columns, side, 4).transpose(1, 2).reshape(-1, side, side, 4)
    return tiles[: len(table["labels"])].contiguous()
