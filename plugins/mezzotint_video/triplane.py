"""Three planes of a clip: what pools a space-time block along one axis, and how the planes travel as one tensor.

A block of features has axes t, y, x. PVDM keeps it as three planes: xy (pooled over t), yt (pooled over x) and xt
(pooled over y). A plane's rows come first in its name's meaning: yt is indexed [t, y] and xt [t, x]. Stacked along
their rows they are latents [B, C, H + 2 F, W] like any others, so samplers, noise and guidance need not know of
them. Yu et al. 2023, "Video Probabilistic Diffusion Models in Projected Latent Space", section 3.1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["AxisPool", "Planes", "broadcast_sum", "stack_planes", "unstack_planes"]


class Planes(NamedTuple):
    """xy: [B, C, H, W]. yt: [B, C, F, H]. xt: [B, C, F, W]."""

    xy: Tensor
    yt: Tensor
    xt: Tensor


def stack_planes(planes: Planes) -> Tensor:
    """[B, C, H + 2 F, W], for square pictures: the rows of xy, then of yt, then of xt.

    Raises: ValueError: H is not W, so that the rows differ in length.
    """
    if planes.xy.shape[-1] != planes.xy.shape[-2]:
        raise ValueError(f"planes are stacked for square pictures, got {list(planes.xy.shape[-2:])}")
    return torch.cat(planes, dim=-2)


def unstack_planes(stacked: Tensor) -> Planes:
    """The inverse of `stack_planes`; views.

    Raises: ValueError: rows that cannot be a square and twice the frames.
    """
    rows, side = stacked.shape[-2:]
    frames, rest = divmod(rows - side, 2)
    if frames < 1 or rest:
        raise ValueError(f"wanted [B, C, W + 2 frames, W], got {list(stacked.shape)}")
    return Planes(*stacked.split((side, frames, frames), dim=-2))


def broadcast_sum(planes: Planes) -> Tensor:
    """[B, F, H, W, C] from three planes, each constant along the axis that it lacks."""
    xy, yt, xt = (plane.movedim(1, -1) for plane in planes)
    return xy[:, None] + yt[:, :, :, None] + xt[:, :, None]


class AxisPool(nn.Module):
    """One layer of a transformer over an axis with an extra token, read at that token alone.

    The token's query is the same everywhere; its keys and values are the axis's features and itself.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.token = nn.Parameter(torch.randn(width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, features: Tensor) -> Tensor:
        """[..., width] from [..., L, width]."""
        token = self.norm(self.token)
        known = self.norm(features)
        known = torch.cat([known, token.expand(*known.shape[:-2], 1, -1)], dim=-2)
        # One query for all places: it is brought to the features, and not every feature to it; and features are
        # mixed before they become values, which is the same.
        query = self.query(token).unflatten(0, (self.heads, -1))
        wanted = torch.einsum("hd,hdw->hw", query, self.key.weight.unflatten(0, (self.heads, -1)))
        shares = (known @ wanted.T * query.shape[-1] ** -0.5).softmax(dim=-2)
        mixed = shares.transpose(-1, -2) @ known  # [..., heads, width]
        values = torch.einsum("...hw,hdw->...hd", mixed, self.value.weight.unflatten(0, (self.heads, -1)))
        pooled = self.token + self.out(values.flatten(-2) + self.value.bias)
        fed: Tensor = pooled + self.feed(pooled)
        return fed
