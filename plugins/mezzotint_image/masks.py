"""Masks: 1 = change here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mezzotint import Image, Mask, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["luminance", "mask_combine", "mask_from_image", "mask_refine", "mask_shape"]

Share = Annotated[float, Field(ge=0, le=1)]


@node("image.mask_from_image")
def mask_from_image(
    image: Image, *, channel: Literal["luminance", "red", "green", "blue", "alpha"] = "luminance"
) -> Mask:
    """A mask from one channel of a picture: white is 1, change here.

    image: [B, H, W, C].
    channel: which; the luminance of grey pictures is their one channel.

    Raises: UserError: the picture has no such channel.
    """
    channels = image.data.shape[-1]
    if channel == "luminance":
        return Mask(luminance(image.data[..., : min(channels, 3)]))
    index = ("red", "green", "blue", "alpha").index(channel)
    if index >= channels:
        raise UserError(f"image.mask_from_image: the picture has {channels} channels and no {channel}")
    return Mask(image.data[..., index].contiguous())


@node("image.mask_shape")
def mask_shape(
    image: Image,
    *,
    shape: Literal["rectangle", "ellipse"] = "rectangle",
    left: Share = 0.25,
    top: Share = 0.25,
    right: Share = 0.75,
    bottom: Share = 0.75,
) -> Mask:
    """A rectangle or an ellipse as a mask of a picture's size; pixels on the edge are covered in part.

    image: whose size and batch the mask gets.
    shape: which of the two.
    left, top, right, bottom: of its box, in shares of the picture's width and height.

    Raises: UserError: an empty box.
    """
    import torch

    if left >= right or top >= bottom:
        raise UserError(f"image.mask_shape: the box {left}..{right} by {top}..{bottom} is empty")
    batch, height, width, _ = image.data.shape
    if shape == "rectangle":
        x, y = _covered(width, left, right), _covered(height, top, bottom)
        return Mask((y[:, None] * x[None, :]).expand(batch, height, width).contiguous())
    fine = 8  # samples per pixel and side
    x = (torch.arange(width * fine) + 0.5) / (width * fine)
    y = (torch.arange(height * fine) + 0.5) / (height * fine)
    across = ((x - (left + right) / 2) / ((right - left) / 2)) ** 2
    down = ((y - (top + bottom) / 2) / ((bottom - top) / 2)) ** 2
    rows = []
    for row in down.split(fine):
        inside = (row[:, None] + across[None, :] <= 1).float()
        rows.append(inside.unflatten(1, (width, fine)).mean(dim=(0, 2)))
    return Mask(torch.stack(rows).expand(batch, height, width).contiguous())


@node("image.mask_refine")
def mask_refine(
    mask: Mask,
    *,
    threshold: Share | None = None,
    grow: Annotated[int, Field(ge=-1024, le=1024)] = 0,
    blur: Annotated[float, Field(ge=0, le=256)] = 0.0,
    invert: bool = False,
) -> Mask:
    """Harden, grow, blur and invert a mask, in this order; each does nothing unless asked for.

    mask: [B, H, W] or [B, F, H, W].
    threshold: what is at least this becomes 1, the rest 0.
    grow: pixels by which the masked region grows on all sides (a square); negative shrinks it.
    blur: standard deviation of a Gaussian, in pixels; the edge of the picture is continued.
    invert: 1 becomes 0.
    """
    data = mask.data.float()
    planes = data.reshape(-1, 1, *data.shape[-2:])
    if threshold is not None:
        planes = (planes >= threshold).float()
    if grow:
        planes = _grown(planes, grow)
    if blur:
        planes = _blurred(planes, blur)
    planes = planes.clamp(0, 1)
    return Mask((1 - planes if invert else planes).reshape(data.shape))


@node("image.mask_combine")
def mask_combine(
    first: Mask, second: Mask, *, mode: Literal["union", "intersection", "difference"] = "union"
) -> Mask:
    """Two masks of one size as one.

    first, second: [B or 1, H, W].
    mode: "union" takes the larger value, "intersection" the smaller, "difference" the first without the
    second.

    Raises: UserError: sizes or batches that do not go together.
    """
    import torch

    one, two = first.data, second.data
    try:
        torch.broadcast_shapes(one.shape, two.shape)
    except RuntimeError as error:
        raise UserError(f"image.mask_combine: the masks are {list(one.shape)} and {list(two.shape)}") from error
    if mode == "difference":
        two = 1 - two
    return Mask(torch.maximum(one, two) if mode == "union" else torch.minimum(one, two))


def luminance(colour: Tensor) -> Tensor:
    """[..., C] to [...]: Rec. 601 weights, as Pillow's mode L has them; one channel is taken as it is."""
    if colour.shape[-1] == 1:
        return colour[..., 0].contiguous()
    return colour[..., 0] * 0.299 + colour[..., 1] * 0.587 + colour[..., 2] * 0.114


def _covered(count: int, start: float, end: float) -> Tensor:
    """The share of each of `count` pixels that lies between two shares of their whole length."""
    import torch

    edges = torch.arange(count + 1, dtype=torch.float64) / count
    inside = edges.clamp(start, end).diff() * count
    return inside.float()


def _grown(planes: Tensor, by: int) -> Tensor:
    from torch.nn.functional import max_pool2d

    sign, size = (1, by) if by > 0 else (-1, -by)
    planes = planes * sign
    # Two narrow passes are one square.
    planes = max_pool2d(planes, (2 * size + 1, 1), stride=1, padding=(size, 0))
    return max_pool2d(planes, (1, 2 * size + 1), stride=1, padding=(0, size)) * sign


def _blurred(planes: Tensor, sigma: float) -> Tensor:
    import torch
    from torch.nn.functional import conv2d

    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(planes.device)
    height, width = planes.shape[-2:]
    rows = torch.arange(-radius, height + radius).clamp(0, height - 1)
    columns = torch.arange(-radius, width + radius).clamp(0, width - 1)
    planes = conv2d(planes[:, :, rows], kernel.reshape(1, 1, -1, 1))
    return conv2d(planes[:, :, :, columns], kernel.reshape(1, 1, 1, -1))
