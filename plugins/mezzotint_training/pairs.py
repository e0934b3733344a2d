"""A data set's pictures with their captions as batches, and how well each finds the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from mezzotint import UserError
from mezzotint_training.epochs import rows
from mezzotint_training.reading import load_tokenizer, tokenise

__all__ = ["PairBatches", "contrastive_loss", "found_first", "squared"]


class PairBatches:
    """Pictures [B, 3, size, size] uint8 and token ids [B, L] int64; the last tenth, at most 256, is held out.

    Raises: UserError: fewer than ten items, no tokenizer, a batch of one.
    """

    def __init__(self, reader: Any, size: int, batch: int, seed: int) -> None:
        if len(reader) < 10:
            raise UserError(f"wanted at least 10 pictures to train on, got {len(reader)}")
        if batch < 2:
            raise UserError("training by contrast needs a batch of at least 2: other items are what it contrasts")
        if not hasattr(reader, "tokenizer_files"):
            raise UserError("the data set has no tokenizer for its captions; smallworld.dataset has one")
        self.reader, self.size, self.count, self.seed = reader, size, batch, seed
        self.files: dict[str, str] = reader.tokenizer_files()
        self.tokenizer = load_tokenizer(self.files)
        self.held = min(256, len(reader) // 10)

    def __call__(self, step: int, rank: int) -> tuple[Tensor, Tensor]:
        return self.read(rows(len(self.reader) - self.held, self.count, self.seed, step, rank))

    def held_out(self, most: int = 256) -> tuple[Tensor, Tensor]:
        """Pairs that are not trained on, the same every time."""
        first = len(self.reader) - self.held
        return self.read(range(first, first + min(self.held, most)))

    def read(self, items: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The pairs of these indices."""
        found = [self.reader[item] for item in items]
        for item in found:
            if not str(item.get("caption", "")).strip():
                raise UserError("training by contrast wants a caption for every picture, and an item has none")
        pictures = torch.stack([squared(item["image"], self.size) for item in found])
        return pictures, tokenise(self.tokenizer, [str(item["caption"]) for item in found])


def squared(picture: Any, size: int) -> Tensor:
    """A picture [H, W, 3] uint8, cut square in its middle and averaged down, as [3, size, size] uint8.

    Raises: UserError: another layout, or smaller than `size`.
    """
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    if pixels.shape[0] != 3 or pixels.dtype != torch.uint8:
        raise UserError(f"wanted pictures [H, W, 3] uint8, got {list(np.shape(picture))} {pixels.dtype}")
    side = min(pixels.shape[1:])
    if side < size:
        raise UserError(f"a picture is {side} pixels across, less than the size {size} of the network")
    top, left = (pixels.shape[1] - side) // 2, (pixels.shape[2] - side) // 2
    square = pixels[:, top : top + side, left : left + side]
    return square if side == size else adaptive_avg_pool2d(square.float(), size).round().to(torch.uint8)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """The mean of both cross entropies of scale * image text^T, in which pair i belongs together.

    image, text: [B, D] of length 1. scale: scalar, the inverse of the temperature.
    Source: Radford et al. 2021, figure 3.
    """
    logits = scale * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def found_first(image: Tensor, text: Tensor, within: int = 1) -> tuple[float, float]:
    """Share of pictures whose text is among the `within` nearest texts, and of texts whose picture is."""
    near = image @ text.T
    right = torch.arange(len(near), device=near.device)[:, None]
    best = (order.topk(min(within, len(near)), dim=1).indices == right for order in (near, near.T))
    by_image, by_text = (hits.any(1).float().mean().item() for hits in best)
    return by_image, by_text
