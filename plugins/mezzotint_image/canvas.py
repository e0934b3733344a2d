"""Canvases: a plain one, a part of one, a larger one, one laid over another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import Image, Mask, UserError, node
from mezzotint_image.colours import parse_colour
from mezzotint_image.resizing import Framed, Side, matching_mask

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["composite", "crop", "pad", "solid"]

Border = Annotated[int, Field(ge=0, le=16384)]


@node("image.solid")
def solid(
    *, width: Side, height: Side, colour: str = "white", batch: Annotated[int, Field(ge=1, le=4096)] = 1
) -> Image:
    """Plain pictures, [batch, height, width, 3].

    width, height: in pixels.
    colour: a CSS name or #rrggbb; #rrggbbaa gives a fourth channel.
    batch: how many.
    """
    channels = 4 if colour.startswith("#") and len(colour) in (5, 9) else 3
    return Image(parse_colour(colour, channels).expand(batch, height, width, channels).contiguous())


@node("image.crop")
def crop(
    image: Image, mask: Mask | None = None, *, left: Border = 0, top: Border = 0, width: Side, height: Side
) -> Framed:
    """Cut a rectangle out of pictures, and out of a mask with them.

    image: [B, H, W, C].
    mask: [B or 1, H, W].
    left, top: of the rectangle, in pixels.
    width, height: of the rectangle, in pixels.

    Raises: UserError: the rectangle leaves the picture.
    """
    rows, columns = image.data.shape[1:3]
    if left + width > columns or top + height > rows:
        raise UserError(
            f"image.crop: {width}x{height} at ({left}, {top}) leaves the picture, which is {columns}x{rows}"
        )
    masks = matching_mask(image, mask)
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    return Framed(Image(image.data[window].contiguous()), Mask(masks[window].contiguous()))


@node("image.pad")
def pad(
    image: Image,
    mask: Mask | None = None,
    *,
    left: Border = 0,
    top: Border = 0,
    right: Border = 0,
    bottom: Border = 0,
    colour: str | None = None,
) -> Framed:
    """Extend pictures beyond their edges; the mask is 1 there, ready for outpainting.

    image: [B, H, W, C].
    mask: [B or 1, H, W]; 0 inside without it.
    left, top, right, bottom: by how many pixels.
    colour: of the border; without it the outermost pixels are repeated.
    """
    import torch

    batch, height, width, channels = image.data.shape
    masks = matching_mask(image, mask)
    rows = torch.arange(-top, height + bottom).clamp(0, height - 1)
    columns = torch.arange(-left, width + right).clamp(0, width - 1)
    canvas = image.data.cpu()[:, rows][:, :, columns]
    inside = (slice(None), slice(top, top + height), slice(left, left + width))
    if colour is not None:
        canvas = parse_colour(colour, channels).expand(canvas.shape).contiguous()
        canvas[inside] = image.data.cpu()
    around = torch.ones(batch, height + top + bottom, width + left + right)
    around[inside] = masks
    return Framed(Image(canvas.contiguous()), Mask(around))


@node("image.composite")
def composite(base: Image, overlay: Image, mask: Mask | None = None, *, left: int = 0, top: int = 0) -> Image:
    """Lay pictures over others: `overlay` where the mask is 1, `base` where it is 0, mixed between.

    base: [B, H, W, C]; the result has its size. Where the mask is 0 its pixels come back unchanged to the
    bit.
    overlay: of any size; what leaves the base is cut off. An alpha channel of its own counts too.
    mask: of the overlay's size.
    left, top: where the overlay's corner lies, in pixels; may be negative.

    Raises: UserError: batches or sizes that do not go together.
    """
    share = matching_mask(overlay, mask) if mask is not None else overlay.data.new_ones(overlay.data.shape[:3])
    upper = overlay.data
    if upper.shape[-1] == 4:
        share, upper = share * upper[..., 3], upper[..., :3]
    batch = max(base.data.shape[0], upper.shape[0])
    if any(count not in (1, batch) for count in (base.data.shape[0], upper.shape[0])):
        raise UserError(f"image.composite: {upper.shape[0]} pictures over {base.data.shape[0]}")
    canvas = base.data.expand(batch, *base.data.shape[1:]).clone()
    below, above = _overlap(canvas.shape, upper.shape, left, top)
    canvas[below] = _over(canvas[below], upper[above], share[above].unsqueeze(-1))
    return Image(canvas)


def _overlap(base: tuple[int, ...], upper: tuple[int, ...], left: int, top: int) -> tuple[tuple, tuple]:
    """The slices of both in which they meet."""
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = max(y0, min(base[1], top + upper[1])), max(x0, min(base[2], left + upper[2]))
    everything = slice(None)
    below = (everything, slice(y0, y1), slice(x0, x1))
    return below, (everything, slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def _over(base: Tensor, upper: Tensor, share: Tensor) -> Tensor:
    """Porter and Duff's "over"; `share` is the upper's opacity."""
    import torch

    colours = base.shape[-1] if base.shape[-1] != 4 else 3
    if colours == 1 and upper.shape[-1] == 3:
        from mezzotint_image.masks import luminance

        upper = luminance(upper).unsqueeze(-1)
    if base.shape[-1] != 4:
        return base * (1 - share) + upper * share
    alpha = base[..., 3:]
    total = share + alpha * (1 - share)
    mixed = (upper * share + base[..., :3] * alpha * (1 - share)) / total.clamp(min=1e-6)
    out = torch.cat([mixed, total], dim=-1)
    return torch.where(share == 0, base, out)
