"""Batches from data sets, drawn and encoded as they are needed and remembered where that is cheap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

__all__ = ["CaptionBatches", "LatentBatches", "PictureBatches", "load_tokenizer", "tokenise"]

TextBatch = tuple[Tensor, Tensor]


def load_tokenizer(files: dict[str, str]) -> CLIPTokenizer:
    """A tokenizer from the text of its files, by name."""
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
        return tokenizer


def tokenise(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids [N, L] int64, padded and cut to the tokenizer's length."""
    ids = tokenizer(list(captions), padding="max_length", truncation=True).input_ids
    return torch.tensor(ids, dtype=torch.int64)


class PictureBatches:
    """Random pictures of a data set: [batch, H, W, 3] uint8."""

    def __init__(self, reader: Any, batch: int, seed: int) -> None:
        self.reader, self.batch, self.seed = reader, batch, seed

    def __call__(self, step: int, rank: int) -> Tensor:
        rng = np.random.default_rng((self.seed, step, rank))
        rows = rng.integers(len(self.reader), size=self.batch)
        return torch.from_numpy(np.stack([self.reader[int(row)]["image"] for row in rows]))


class CaptionBatches:
    """Random captions of a data set with their classes: ids [batch, L] int64, classes [batch, A] int64."""

    def __init__(self, reader: Any, tokenizer: CLIPTokenizer, batch: int, seed: int) -> None:
        self.reader, self.tokenizer, self.batch, self.seed = reader, tokenizer, batch, seed

    def __call__(self, step: int, rank: int) -> TextBatch:
        rng = np.random.default_rng((self.seed, step, rank))
        rows = rng.integers(len(self.reader), size=self.batch)
        captions = [self.reader.caption(int(row)) for row in rows]
        classes = torch.tensor([self.reader.classes(caption) for caption in captions], dtype=torch.int64)
        return tokenise(self.tokenizer, captions), classes


class LatentBatches:
    """Random latents and token ids of several data sets, in shares that may change once.

    encode: [N, H, W, 3] uint8 to latents [N, C, h, w]. Each item is drawn and encoded once and then remembered in
    half precision (4 KiB for 8x16x16 latents). shares: of each data set until step `until`, and after it.
    """

    def __init__(
        self,
        readers: Sequence[Any],
        shares: tuple[Sequence[float], Sequence[float]],
        until: int,
        *,
        encode: Callable[[Tensor], Tensor],
        tokenizer: CLIPTokenizer,
        batch: int,
        seed: int,
    ) -> None:
        self.readers, self.until, self.batch, self.seed = readers, until, batch, seed
        self.bounds = [np.cumsum(np.asarray(s, float) / sum(s)) for s in shares]
        self.encode, self.tokenizer = encode, tokenizer
        self.known: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, step: int, rank: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, step, rank))
        bounds = self.bounds[0 if step < self.until else 1]
        chosen = np.minimum(np.searchsorted(bounds, rng.random(self.batch), side="right"), len(self.readers) - 1)
        wanted = [(int(which), int(rng.integers(len(self.readers[which])))) for which in chosen]
        self._learn([key for key in dict.fromkeys(wanted) if key not in self.known])
        latents, ids = zip(*(self.known[key] for key in wanted), strict=True)
        return torch.stack(latents).float(), torch.stack(ids).long()

    def _learn(self, keys: Sequence[tuple[int, int]]) -> None:
        if not keys:
            return
        items = [self.readers[which][row] for which, row in keys]
        pictures = torch.from_numpy(np.stack([item["image"] for item in items]))
        with torch.no_grad():
            latents = self.encode(pictures).half()
        ids = tokenise(self.tokenizer, [item["caption"] for item in items]).to(torch.int16)
        self.known.update(zip(keys, zip(latents, ids, strict=True), strict=True))
