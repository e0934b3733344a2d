"""A data set's pictures as batches of one small size, drawn once and then remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mezzotint import Image, UserError
from mezzotint_training.epochs import rows

__all__ = ["Pictures", "sheet_of", "to_image"]

REMEMBERED = 1 << 29  # bytes

Prepare = Callable[[Tensor, Mapping[str, Any]], dict[str, Tensor]]


class Pictures:
    """Pictures of a reader, cut square and averaged down to `size`.

    The last tenth of the items, at most 256, is never trained on.

    prepare: what else to remember of an item, from its levels and the item itself: tensors of one row each, a
    function of the item alone, so that a run that goes on with nothing remembered repeats the same bits.

    Raises: UserError: fewer than ten items.
    """

    def __init__(self, reader: Any, size: int, batch: int, seed: int, prepare: Prepare | None = None) -> None:
        if len(reader) < 10:
            raise UserError(f"wanted at least 10 pictures to train on, got {len(reader)}")
        self.reader, self.size, self.count, self.seed = reader, size, batch, seed
        self.held = min(256, len(reader) // 10)
        self.prepare = prepare
        self.known: dict[int, dict[str, Tensor]] = {}
        self.bytes = 0

    def items(self, items: Sequence[int]) -> dict[str, Tensor]:
        """ "levels" [N, 3, size, size] uint8, and the rows that `prepare` makes."""
        found = [self.known[item] if item in self.known else self._remember(item) for item in items]
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    def levels(self, items: Sequence[int]) -> Tensor:
        """[N, 3, size, size] uint8."""
        return self.items(items)["levels"]

    def batch_items(self, step: int, rank: int = 0) -> dict[str, Tensor]:
        """Batch number `step`: as `items` gives it."""
        return self.items(rows(len(self.reader) - self.held, self.count, self.seed, step, rank))

    def batch(self, step: int, rank: int) -> Tensor:
        """Batch number `step`, uint8."""
        return self.batch_items(step, rank)["levels"]

    def held_items(self, most: int = 256) -> list[int]:
        """The numbers of items that are not trained on, the same every time."""
        first = len(self.reader) - self.held
        return list(range(first, first + min(self.held, most)))

    def held_out(self, most: int = 256) -> Tensor:
        """Pictures in 0..1 that are not trained on, the same every time."""
        return self.levels(self.held_items(most)).float() / 255

    def _remember(self, item: int) -> dict[str, Tensor]:
        made = self._read(item)
        size = sum(value.nbytes for value in made.values())
        if self.bytes + size <= REMEMBERED:
            self.known[item] = made
            self.bytes += size
        return made

    def _read(self, item: int) -> dict[str, Tensor]:
        found = self.reader[item]
        if "image" not in found:
            raise UserError(f"wanted items with an image, got {', '.join(sorted(found)) or 'nothing'}")
        pixels = torch.from_numpy(np.array(found["image"])).permute(2, 0, 1)
        if pixels.shape[0] != 3 or pixels.dtype != torch.uint8:
            raise UserError(f"wanted pictures [H, W, 3] uint8, got {list(found['image'].shape)} {pixels.dtype}")
        side = min(pixels.shape[1:])
        if side < self.size:
            raise UserError(f"item {item} is {side} pixels across, less than the size {self.size} of the network")
        top, left = (pixels.shape[1] - side) // 2, (pixels.shape[2] - side) // 2
        square = pixels[:, top : top + side, left : left + side].float()
        levels = adaptive_avg_pool2d(square, self.size).round().to(torch.uint8)[None]
        return {"levels": levels, **(self.prepare(levels, found) if self.prepare else {})}


def to_image(pixels: Tensor) -> Image:
    """[B, 3, H, W] in 0..1, clamped, as an Image."""
    return Image(pixels.detach().float().clamp(0, 1).permute(0, 2, 3, 1).contiguous().cpu())


def sheet_of(pixels: Tensor, columns: int = 8, enlarged: int = 2) -> Image:
    """[N, 3, H, W] in 0..1 as one picture of `columns` columns, with hard pixels."""
    count, _, height, width = pixels.shape
    filled = torch.ones(-(-count // columns) * columns, 3, height + 2, width + 2)
    filled[:count, :, 1:-1, 1:-1] = pixels.detach().float().clamp(0, 1).cpu()
    grid = filled.view(-1, columns, 3, height + 2, width + 2).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return to_image(grid[None].repeat_interleave(enlarged, 2).repeat_interleave(enlarged, 3))
