"""Several pictures as one batch, and some of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Image, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["batch", "repeat", "select", "with_channels"]


@node("image.batch")
def batch(images: list[Image]) -> Image:
    """Pictures of one size as one batch, in order.

    images: single pictures or batches. Channels become those of the richest.

    Raises: UserError: none, or sizes that differ.
    """
    import torch

    if not images:
        raise UserError("image.batch: wanted at least one picture, got an empty list")
    sizes = sorted({f"{i.data.shape[2]}x{i.data.shape[1]}" for i in images})
    if len(sizes) > 1:
        raise UserError(f"image.batch: a batch has one size, got {', '.join(sizes)}; use image.resize first")
    channels = max(i.data.shape[-1] for i in images)
    return Image(torch.cat([with_channels(i.data, channels) for i in images]))


@node("image.repeat")
def repeat(image: Image, *, count: Annotated[int, Field(ge=1, le=4096)] = 1) -> Image:
    """Pictures several times over: all of them, then all again, for several results from one picture.

    image: [B, H, W, C].
    count: how often.
    """
    return Image(image.data.repeat(count, 1, 1, 1))


@node("image.select")
def select(image: Image, *, index: int = 0, count: Annotated[int, Field(ge=1)] = 1) -> Image:
    """Some of a batch's pictures.

    image: the batch.
    index: of the first one, from 0; negative counts from the end.
    count: how many.

    Raises: UserError: the batch has fewer.
    """
    size = image.data.shape[0]
    start = index + size if index < 0 else index
    if start < 0 or start + count > size:
        raise UserError(f"image.select: {count} from {index} on, but the batch has {size}")
    return Image(image.data[start : start + count].contiguous())


def with_channels(data: Tensor, channels: int) -> Tensor:
    """[..., C] with at least `channels` channels: grey repeated, alpha full."""
    import torch

    if data.shape[-1] == 1 and channels > 1:
        data = data.expand(*data.shape[:-1], 3)
    if data.shape[-1] == 3 and channels == 4:
        data = torch.cat([data, data.new_ones(*data.shape[:-1], 1)], dim=-1)
    return data
