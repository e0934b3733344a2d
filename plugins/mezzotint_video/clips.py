"""A data set's clips as batches, encoded once and then remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mezzotint import UserError
from mezzotint_training import rows

__all__ = ["Clips", "levels_of"]

REMEMBERED = 1 << 30  # bytes

Prepare = Callable[[Tensor, Mapping[str, Any]], dict[str, Tensor]]


class Clips:
    """Clips of a reader. The last tenth of the items, at most 64, is never trained on.

    prepare: what to remember of an item, from its levels [F, H, W, 3] uint8 and the item itself: tensors of one
    row each, a function of the item alone.

    Raises: UserError: fewer than ten items.
    """

    def __init__(self, reader: Any, batch: int, seed: int, prepare: Prepare) -> None:
        if len(reader) < 10:
            raise UserError(f"wanted at least 10 clips to train on, got {len(reader)}")
        self.reader, self.count, self.seed, self.prepare = reader, batch, seed, prepare
        self.held = min(64, len(reader) // 10)
        self.known: dict[int, dict[str, Tensor]] = {}
        self.bytes = 0

    def items(self, items: Sequence[int]) -> dict[str, Tensor]:
        """The rows that `prepare` makes, of several items. Raises: UserError: clips of several sizes."""
        found = [self._item(item) for item in items]
        for name, value in found[0].items():
            for one, item in zip(found, items, strict=True):
                if one[name].shape != value.shape:
                    raise UserError(
                        f"clips of one batch have one size; item {item} gives {name} {list(one[name].shape[1:])}, "
                        f"others {list(value.shape[1:])}"
                    )
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    def batch(self, step: int, rank: int = 0) -> dict[str, Tensor]:
        """Batch number `step`."""
        return self.items(rows(len(self.reader) - self.held, self.count, self.seed, step, rank))

    def held_out(self, most: int) -> dict[str, Tensor]:
        """Items that are not trained on, the same every time."""
        first = len(self.reader) - self.held
        return self.items(range(first, first + min(self.held, most)))

    def _item(self, item: int) -> dict[str, Tensor]:
        if item not in self.known:
            made = self._read(item)
            size = sum(value.nbytes for value in made.values())
            if self.bytes + size > REMEMBERED:
                return made
            self.known[item] = made
            self.bytes += size
        return self.known[item]

    def _read(self, item: int) -> dict[str, Tensor]:
        found = self.reader[item]
        return self.prepare(levels_of(found, item), found)


def levels_of(item: Mapping[str, Any], number: int) -> Tensor:
    """[F, H, W, 3] uint8. Raises: UserError: no clip, or none of that kind."""
    if "clip" not in item:
        got = ", ".join(sorted(item)) or "nothing"
        raise UserError(f"wanted items with a clip, got {got}; smallworld.clip_dataset gives such")
    levels = torch.from_numpy(np.array(item["clip"]))
    if levels.ndim != 4 or levels.shape[-1] != 3 or levels.dtype != torch.uint8 or not levels.shape[0]:
        raise UserError(
            f"item {number}: wanted a clip [F, H, W, 3] uint8, got {list(levels.shape)} {levels.dtype}"
        )
    return levels
