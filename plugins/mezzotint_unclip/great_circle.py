"""The way between embeddings of length 1: along the great circle, or straight and brought back to the sphere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["angle", "slerp", "straight"]

_NEARLY_EQUAL = 1e-4


def angle(first: Tensor, second: Tensor) -> Tensor:
    """[...] radians in 0..pi between unit vectors [..., D]; exact near 0 and pi, where acos is not.

    Source: Kahan 2006, "How futile are mindless assessments of roundoff", section 12.
    """
    return 2 * torch.atan2((first - second).norm(dim=-1), (first + second).norm(dim=-1))


def slerp(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """sin((1 - t) w) / sin w * first + sin(t w) / sin w * second, w the angle between them.

    first, second: [..., D], unit vectors, not opposite. share: t, [...] in 0..1; at 0 and 1 the ends come back
    bit for bit.
    Source: Shoemake 1985; Ramesh et al. 2022 (unCLIP), section 3.2.
    """
    share = share.to(first)[..., None]
    between = angle(first, second)[..., None]
    # Of nearly equal vectors the two sines cancel; there the chord is the arc.
    round_trip = between.clamp_min(_NEARLY_EQUAL).sin()
    curved = ((1 - share) * between).sin() / round_trip * first + (share * between).sin() / round_trip * second
    mixed = torch.where(between < _NEARLY_EQUAL, straight(first, second, share[..., 0]), curved)
    return torch.where(share == 0, first, torch.where(share == 1, second, mixed))


def straight(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """(1 - t) first + t second, brought back to length 1. Arguments as of `slerp`."""
    share = share.to(first)[..., None]
    mixed = normalize((1 - share) * first + share * second, dim=-1)
    return torch.where(share == 0, first, torch.where(share == 1, second, mixed))
