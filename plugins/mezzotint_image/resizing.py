"""Resizing, in floats from end to end, with Pillow's antialiased filters: the same on every device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from mezzotint import Image, Mask, UserError, node
from mezzotint_image.colours import parse_colour

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Framed", "Side", "matching_mask", "resize", "resized"]

Side = Annotated[int, Field(ge=1, le=16384)]
Filter = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]


class Framed(NamedTuple):
    """image: the pictures.
    mask: the mask given, treated alike (zeros if none was given); 1 where the frame was extended.
    """

    image: Image
    mask: Mask


@node("image.resize")
def resize(
    image: Image,
    mask: Mask | None = None,
    *,
    width: Side | None = None,
    height: Side | None = None,
    fit: Literal["stretch", "crop", "pad", "inside"] = "crop",
    multiple_of: Annotated[int, Field(ge=1, le=1024)] = 1,
    filter: Filter = "lanczos",
    colour: str = "black",
) -> Framed:
    """Resize pictures, and a mask with them.

    image: [B, H, W, C].
    mask: [B or 1, H, W] of the same size.
    width, height: in pixels; a missing one follows from the aspect ratio, both missing keep the size.
    fit: how two sizes of another aspect ratio are met: "stretch", "crop" (fill, cut evenly), "pad" (fit
    inside, fill the rest with `colour`), "inside" (fit inside, the result may be smaller).
    multiple_of: the result's sides are rounded to multiples of it, as autoencoders need.
    filter: "nearest" keeps hard pixels; the others are antialiased when reducing. Masks use bilinear at most.
    colour: for "pad": a name or #rrggbb.

    Raises: UserError: a mask of another size than the picture.
    """
    old_height, old_width = image.data.shape[1:3]
    covered = matching_mask(image, mask)
    target = _target(old_width, old_height, width, height, fit, multiple_of)
    ratio_w, ratio_h = target[0] / old_width, target[1] / old_height
    soft: Filter = "bilinear" if filter in ("bicubic", "lanczos") else filter
    if fit == "crop":
        ratio = max(ratio_w, ratio_h)
        part_w, part_h = target[0] / ratio, target[1] / ratio
        left, top = (old_width - part_w) / 2, (old_height - part_h) / 2
        box = (left, top, left + part_w, top + part_h)
        return Framed(
            Image(resized(image.data, target, filter, box)),
            Mask(resized(covered.unsqueeze(-1), target, soft, box)[..., 0]),
        )
    inner = target
    if fit == "pad":
        ratio = min(ratio_w, ratio_h)
        inner = (max(1, round(old_width * ratio)), max(1, round(old_height * ratio)))
    pictures = resized(image.data, inner, filter)
    masks = resized(covered.unsqueeze(-1), inner, soft)[..., 0]
    return _padded(pictures, masks, target, colour)


def resized(
    data: Tensor, size: tuple[int, int], filter: Filter, box: tuple[float, float, float, float] | None = None
) -> Tensor:
    """[B, H, W, C] to another (width, height), clamped to 0..1.

    box: the part (left, top, right, bottom), in pixels, that fills the result. Colours are weighted by alpha.
    """
    import numpy
    import torch
    from PIL import Image as Pillow

    if data.shape[2:0:-1] == size and box in (None, (0, 0, *size)):
        return data
    with_alpha = data.shape[-1] == 4
    if with_alpha:
        data = torch.cat([data[..., :3] * data[..., 3:], data[..., 3:]], dim=-1)
    planes = data.float().cpu().movedim(-1, 1).reshape(-1, *data.shape[1:3])
    method = Pillow.Resampling[filter.upper()]
    done = [
        torch.from_numpy(numpy.array(Pillow.fromarray(plane.contiguous().numpy()).resize(size, method, box)))
        for plane in planes
    ]
    out = torch.stack(done).unflatten(0, (data.shape[0], data.shape[-1])).movedim(1, -1).clamp(0, 1)
    if with_alpha:
        out = torch.cat([(out[..., :3] / out[..., 3:].clamp(min=1e-6)).clamp(0, 1), out[..., 3:]], dim=-1)
    return out.contiguous()


def matching_mask(image: Image, mask: Mask | None) -> Tensor:
    """The mask's data, or zeros, as [B, H, W] of the picture's size."""
    import torch

    batch, height, width, _ = image.data.shape
    if mask is None:
        return torch.zeros(batch, height, width)
    if mask.data.ndim != 3 or mask.data.shape[1:] != (height, width) or mask.data.shape[0] not in (1, batch):
        raise UserError(
            f"the mask is {list(mask.data.shape)}, the picture {list(image.data.shape)}: wanted one size, and one "
            "mask or one for each picture; resize them together (image.resize takes both)"
        )
    return mask.data.expand(batch, height, width)


def _target(
    old_width: int, old_height: int, width: int | None, height: int | None, fit: str, multiple: int
) -> tuple[int, int]:
    if width and height and fit == "inside":
        ratio = min(width / old_width, height / old_height)
        wanted = (old_width * ratio, old_height * ratio)
    elif width:
        wanted = (width, height or old_height * width / old_width)
    elif height:
        wanted = (old_width * height / old_height, height)
    else:
        wanted = (old_width, old_height)
    rounded = [max(1, round(side / multiple)) * multiple for side in wanted]
    if max(rounded) > 16384:
        raise UserError(f"image.resize: {rounded[0]}x{rounded[1]} is over 16384 pixels a side")
    return rounded[0], rounded[1]


def _padded(pictures: Tensor, masks: Tensor, size: tuple[int, int], colour: str) -> Framed:
    import torch

    batch, height, width, channels = pictures.shape
    if (width, height) == size:
        return Framed(Image(pictures), Mask(masks))
    canvas = parse_colour(colour, channels).expand(batch, size[1], size[0], channels).contiguous()
    around = torch.ones(batch, size[1], size[0])
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    canvas[:, top : top + height, left : left + width] = pictures
    around[:, top : top + height, left : left + width] = masks
    return Framed(Image(canvas), Mask(around))
