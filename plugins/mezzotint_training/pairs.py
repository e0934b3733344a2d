"""A data set's pictures with their captions as batches, and how well each finds the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mezzotint import UserError
from mezzotint_training.pictures import Pictures
from mezzotint_training.reading import load_tokenizer, tokenise

__all__ = ["PairBatches", "contrastive_loss", "found_first"]


class PairBatches:
    """Pictures [B, 3, size, size] uint8 and token ids [B, L] int64; held out as in `Pictures`.

    Raises: UserError: fewer than ten items, no tokenizer, a batch of one.
    """

    def __init__(self, reader: Any, size: int, batch: int, seed: int) -> None:
        if batch < 2:
            raise UserError("training by contrast needs a batch of at least 2: other items are what it contrasts")
        if not hasattr(reader, "tokenizer_files"):
            raise UserError("the data set has no tokenizer for its captions; smallworld.dataset has one")
        self.files: dict[str, str] = reader.tokenizer_files()
        self.tokenizer = load_tokenizer(self.files)
        self.pictures = Pictures(reader, size, batch, seed, self._words)

    def __call__(self, step: int, rank: int) -> tuple[Tensor, Tensor]:
        rows = self.pictures.batch_items(step, rank)
        return rows["levels"], rows["ids"]

    def held_out(self, most: int = 256) -> tuple[Tensor, Tensor]:
        """Pairs that are not trained on, the same every time."""
        rows = self.pictures.items(self.pictures.held_items(most))
        return rows["levels"], rows["ids"]

    def captions(self, most: int = 256) -> list[str]:
        """The captions of `held_out`."""
        return [str(self.pictures.reader[item]["caption"]) for item in self.pictures.held_items(most)]

    def _words(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        if not str(item.get("caption", "")).strip():
            raise UserError("training by contrast wants a caption for every picture, and an item has none")
        return {"ids": tokenise(self.tokenizer, [str(item["caption"])])}


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
