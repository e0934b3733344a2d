"""Pairs of embeddings of pictures and their captions: what a prior learns from, computed once as a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Context, Dataset, ImageEncoder, TextEncoder, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["READER", "Pairs", "open_pairs", "pairs"]

READER = "unclip.pairs"
LARGEST = 1 << 31  # bytes of a data set that travels as one value
_AT_ONCE = 128


class Pairs:
    """Items of a data set that `unclip.pairs` made.

    image, text: [N, D] float32, of length 1. context: [N, L, W] float16, states of the words. null: context
    [1, L, W] and text [1, D] of no words at all.
    """

    def __init__(self, dataset: Dataset) -> None:
        config = dataset.config
        self.image: Tensor = config["image"]
        self.text: Tensor = config["text"]
        self.context: Tensor = config["context"]
        self.null: tuple[Tensor, Tensor] = (config["null_context"], config["null_text"])

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """ "image_embedding", "text_embedding": [D]; "context": [L, W]."""
        return {
            "image_embedding": self.image[index], "text_embedding": self.text[index],
            "context": self.context[index],
        }  # fmt: skip


def open_pairs(dataset: Dataset, ctx: Context) -> Pairs:
    """The loader of reader "unclip.pairs"."""
    return Pairs(dataset)


@node("unclip.pairs", device=True)
def pairs(
    ctx: Context,
    dataset: Dataset,
    image_encoder: ImageEncoder,
    text_encoder: TextEncoder,
    *,
    count: Annotated[int, Field(ge=1, le=10**7)] | None = None,
) -> Dataset:
    """Embed the pictures of a data set and their captions by CLIP, to train a prior on: once, for every prior.

    dataset: its items have pictures with captions.
    image_encoder, text_encoder: of one CLIP.
    count: how many of the first items; null takes all.

    Raises: UserError: more items than there are, an item without a caption, encoders whose embeddings have
        different widths or are not of length 1, or more than 2 GiB.
    """
    import torch

    from mezzotint_unclip.embedding import embed_images, embed_texts

    reader = ctx.open_dataset(dataset)
    wanted = len(reader) if count is None else count
    if not 1 <= wanted <= len(reader):
        raise UserError(f"unclip.pairs: {wanted} pairs wanted, the data set has {len(reader)} items")
    pictures, words = ctx.realise(image_encoder), ctx.realise(text_encoder)
    null_context, null_text = embed_texts(words, [""], "unclip.pairs: text_encoder")
    if wanted * null_context[0].numel() * 2 > LARGEST:
        raise UserError(f"unclip.pairs: {wanted} pairs are more than 2 GiB; take a smaller count")
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, wanted, _AT_ONCE):
        items = [_item(reader, index) for index in range(start, min(start + _AT_ONCE, wanted))]
        context, text = embed_texts(words, [item["caption"] for item in items], "unclip.pairs")
        rows.append((embed_images(pictures, items), text, context.half()))
        ctx.progress(min(start + _AT_ONCE, wanted), wanted)
    image, text, context = (torch.cat(column) for column in zip(*rows, strict=True))
    if image.shape[1] != text.shape[1]:
        raise UserError(
            f"unclip.pairs: the pictures' embeddings are {image.shape[1]} wide, the captions' {text.shape[1]}: "
            "the encoders are not of one CLIP"
        )
    config = {"image": image, "text": text, "context": context}
    config |= {"null_context": null_context, "null_text": null_text}
    return Dataset(READER, config, wanted)


def _item(reader: Any, index: int) -> dict[str, Any]:
    item: dict[str, Any] = reader[index]
    if "image" not in item or "caption" not in item:
        found = ", ".join(sorted(item)) or "nothing"
        raise UserError(f"unclip.pairs: wanted items with an image and a caption, item {index} has {found}")
    return item
