"""Room around a picture, for a model to fill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mezzotint import Context, Image, Mask, UserError, node
from mezzotint_image.canvas import Border
from mezzotint_image.resizing import Framed

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["outpaint"]


@node("image.outpaint")
def outpaint(
    ctx: Context,
    image: Image,
    *,
    left: Border = 0,
    top: Border = 0,
    right: Border = 0,
    bottom: Border = 0,
    overlap: Border = 0,
    fill: Literal["edge", "mirror", "noise"] = "edge",
    multiple_of: Annotated[int, Field(ge=1, le=1024)] = 8,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Framed:
    """Make room around pictures, and the mask of what is to be painted there.

    image: [B, H, W, C].
    left, top, right, bottom: pixels of new room on each side.
    overlap: pixels of the picture beside the room that may change too; the mask falls from 1 to 0 over them.
    fill: what the room holds until it is painted: the outermost pixels repeated, the picture mirrored, or noise
        of the picture's mean and spread; it matters where painting keeps something of it.
    multiple_of: what the sides of the result must be multiples of, as autoencoders need.
    seed: of the noise.

    Raises: UserError: no room on any side; sides that are not multiples; an overlap that leaves nothing of the
        picture.
    """
    batch, height, width, _ = image.data.shape
    _check((left, top, right, bottom), (width, height), overlap, multiple_of)
    rows = _places(-top, height + bottom, height, fill == "mirror")
    columns = _places(-left, width + right, width, fill == "mirror")
    data = image.data.cpu()
    canvas = data[:, rows][:, :, columns].contiguous()
    if fill == "noise":
        drawn = ctx.noise(seed, "image.outpaint").normal(tuple(canvas.shape)).cpu()
        mean, spread = data.mean((1, 2), keepdim=True), data.std((1, 2), keepdim=True)
        canvas = (mean + spread * drawn).clamp(0, 1)
        canvas[:, top : top + height, left : left + width] = data
    down, across = _outside(top, height, bottom, overlap), _outside(left, width, right, overlap)
    mask = down[:, None].maximum(across[None, :])
    return Framed(Image(canvas), Mask(mask.expand(batch, -1, -1).contiguous()))


def _check(borders: tuple[int, ...], size: tuple[int, int], overlap: int, multiple: int) -> None:
    where, sides = "image.outpaint", dict(zip(("left", "top", "right", "bottom"), borders, strict=True))
    if not any(borders):
        raise UserError(
            f"{where}: there is no room to paint: left, top, right and bottom are all 0. Give at least one of "
            "them some pixels, or make the picture smaller first so that it leaves room"
        )
    for name, length, near, far in (("width", size[0], "left", "right"), ("height", size[1], "top", "bottom")):
        total = length + sides[near] + sides[far]
        if total % multiple:
            more = -total % multiple
            raise UserError(
                f"{where}: the {name} would be {sides[near]} + {length} + {sides[far]} = {total} pixels; wanted a "
                f"multiple of {multiple}: take {far} = {sides[far] + more}, which makes it {total + more}"
            )
        if overlap * ((sides[near] > 0) + (sides[far] > 0)) >= length:
            raise UserError(
                f"{where}: an overlap of {overlap} leaves nothing of a {name} of {length} pixels; take less"
            )


def _places(start: int, end: int, length: int, mirrored: bool) -> Tensor:
    """Which row (or column) of a picture is shown at each place of its canvas."""
    import torch

    places = torch.arange(start, end)
    if not mirrored:
        return places.clamp(0, length - 1)
    around = places.remainder(2 * length)
    return torch.where(around < length, around, 2 * length - 1 - around)


def _outside(before: int, length: int, after: int, overlap: int) -> Tensor:
    """1 in the room, 0 in the picture, and between them a ramp inside the picture: [before + length + after]."""
    import torch

    inside = torch.arange(length, dtype=torch.float32)
    depth = torch.full((length,), float("inf"))
    if before:
        depth = depth.minimum(inside + 1)
    if after:
        depth = depth.minimum(length - inside)
    ramp = (1 - depth / (overlap + 1)).clamp_min(0)
    return torch.cat([torch.ones(before), ramp, torch.ones(after)])
