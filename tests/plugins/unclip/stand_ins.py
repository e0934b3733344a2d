"""A CLIP and a text transformer of random numbers, and pairs made of a closed form."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from mezzotint import Conditioning, Dataset, ImageEncoder, Source, TextEncoder

EMBEDDING, WORDS, LENGTH = 8, 12, 5


class Pictures:
    """An image tower: a fixed projection of the mean colours of a picture's quarters."""

    def __init__(self, width=EMBEDDING):
        self.matrix = torch.randn(12, width, generator=torch.Generator().manual_seed(1))

    def embed(self, pixels):
        quarters = pixels.unfold(1, pixels.shape[1] // 2, pixels.shape[1] // 2)
        quarters = quarters.unfold(2, pixels.shape[2] // 2, pixels.shape[2] // 2).mean((-1, -2))
        return normalize(quarters.flatten(1) @ self.matrix, dim=-1)


class Words:
    """A text tower: numbers that depend on the characters alone."""

    length = LENGTH

    def __init__(self, width=EMBEDDING, words=WORDS):
        self.width, self.words = width, words

    def condition(self, texts, clip_skip=0):
        rows = [torch.Generator().manual_seed(sum(map(ord, text)) + len(text)) for text in texts]
        context = torch.stack([torch.randn(LENGTH, self.words, generator=row) for row in rows])
        pooled = torch.stack([torch.randn(self.width, generator=row) for row in rows])
        return Conditioning(context=context, pooled=normalize(pooled, dim=-1))


LOADERS = {
    "test.pictures": lambda recipe, ctx: Pictures(**recipe.config),
    "test.words": lambda recipe, ctx: Words(**recipe.config),
}


def recipe(kind, loader, **config):
    return kind(source=Source("test", "", loader + str(config)), loader=loader, config=config)


def image_encoder(**config):
    return recipe(ImageEncoder, "test.pictures", **config)


def text_encoder(**config):
    return recipe(TextEncoder, "test.words", **config)


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def text(count=1, width=EMBEDDING, words=WORDS, length=LENGTH, seed=0):
    """A text's conditioning of random numbers."""
    numbers = torch.Generator().manual_seed(seed)
    context = torch.randn(count, length, words, generator=numbers)
    return Conditioning(context=context, pooled=unit(count, width, seed=seed + 1))


def made_pairs(count=200, seed=0):
    """Pairs whose image embedding is a fixed rotation of the text's, as a data set of `unclip.pairs`."""
    told = text(count, seed=seed)
    turn, _ = torch.linalg.qr(torch.randn(EMBEDDING, EMBEDDING, generator=torch.Generator().manual_seed(7)))
    null = text(seed=99)
    config = {
        "image": told.pooled @ turn, "text": told.pooled, "context": told.context.half(),
        "null_context": null.context, "null_text": null.pooled,
    }  # fmt: skip
    return Dataset("unclip.pairs", config, count)
