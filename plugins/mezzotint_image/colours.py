"""Colours by name or number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mezzotint import UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["parse_colour"]


def parse_colour(colour: str, channels: int) -> Tensor:
    """[C] float32 in 0..1 of a CSS name, #rgb, #rrggbb, #rrggbbaa or rgb(…); grey is its luminance.

    Raises: UserError: not a colour.
    """
    import torch
    from PIL import ImageColor

    try:
        red, green, blue, alpha = (*ImageColor.getrgb(colour), 255)[:4]
    except ValueError as error:
        raise UserError(f"{colour!r} is not a colour; give a CSS name or #rrggbb") from error
    if channels == 1:
        return torch.tensor([(0.299 * red + 0.587 * green + 0.114 * blue) / 255])
    return torch.tensor([red, green, blue, alpha][:channels], dtype=torch.float32) / 255
