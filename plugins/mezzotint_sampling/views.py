"""A picture seen in many ways: random affine and perspective views, differentiable.

A network that sees one picture at one place is easily fooled by a texture; what looks right turned, moved and
from the side is there. Source: Avrahami et al. 2022, "Blended Diffusion", section 3.3.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NUMBERS", "homographies", "seen_through", "through_points"]

NUMBERS = 13
"""How many random numbers a view takes."""

_DEGREES, _SHIFT, _DISTORTION, _SHARE = 15.0, 0.1, 0.7, 0.7


def homographies(numbers: Tensor) -> Tensor:
    """Maps [..., 3, 3] from places of a view to those of the picture, both in -1..1.

    numbers: [..., 13], uniform in 0..1. A share of 0.7 of the views is turned by up to 15 degrees and moved by up
    to a tenth of the side; a share of 0.7 has its corners moved inwards by up to 0.35 of the side.
    """
    import torch

    turned = numbers[..., 0] < _SHARE
    angle = (2 * numbers[..., 1] - 1) * math.radians(_DEGREES) * turned
    shift = (2 * numbers[..., 2:4] - 1) * 2 * _SHIFT * turned[..., None]
    affine = torch.zeros(*numbers.shape[:-1], 3, 3, dtype=numbers.dtype, device=numbers.device)
    affine[..., 0, 0], affine[..., 0, 1] = angle.cos(), angle.sin()
    affine[..., 1, 0], affine[..., 1, 1] = -angle.sin(), angle.cos()
    affine[..., :2, 2], affine[..., 2, 2] = shift, 1
    corners = numbers.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    bent = (numbers[..., 4] < _SHARE)[..., None, None]
    inwards = numbers[..., 5:13].reshape(*numbers.shape[:-1], 4, 2) * _DISTORTION * bent
    return affine @ through_points(corners * (1 - inwards), corners.expand_as(inwards))


def through_points(places: Tensor, wanted: Tensor) -> Tensor:
    """The homographies [..., 3, 3] that take four `places` [..., 4, 2] to those `wanted`, in float64 and back."""
    import torch

    x, y = places.double().unbind(-1)
    u, v = wanted.double().unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1)
    more = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1)
    found = torch.linalg.solve(torch.cat([rows, more], -2), torch.cat([u, v], -1))
    last = torch.ones_like(found[..., :1])
    made: Tensor = torch.cat([found, last], -1).view(*found.shape[:-1], 3, 3).to(places.dtype)
    return made


def seen_through(pictures: Tensor, maps: Tensor) -> Tensor:
    """Views [B, N, C, H, W] of pictures [B, C, H, W], bilinear; 0 beyond their edges.

    maps: [B, N, 3, 3], see `homographies`.
    """
    import torch
    from torch.nn.functional import grid_sample

    height, width = pictures.shape[-2:]
    x = (torch.arange(width, device=maps.device, dtype=maps.dtype) * 2 + 1) / width - 1
    y = (torch.arange(height, device=maps.device, dtype=maps.dtype) * 2 + 1) / height - 1
    across = x.expand(height, width)
    places = torch.stack([across, y[:, None].expand(height, width), torch.ones_like(across)], -1)
    moved = torch.einsum("bnij,hwj->bnhwi", maps, places)
    depth = moved[..., 2:]
    # What lies behind the eye is not seen.
    grid = torch.where(depth > 0.05, moved[..., :2] / depth.clamp_min(0.05), 9.0)
    many = pictures.repeat_interleave(maps.shape[1], 0)
    views = grid_sample(many, grid.flatten(0, 1).to(many), align_corners=False, padding_mode="zeros")
    made: Tensor = views.view(*maps.shape[:2], *views.shape[1:])
    return made
