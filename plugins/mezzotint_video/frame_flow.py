"""Optical flow between two small feature maps, by matching blocks: what a motion model is shown of the past.

VIDM (Mei and Patel 2023) takes SPyNet, a trained network on pixels, between the first and the last frame. Here
blocks of latents are matched, without anything to be trained; a soft minimum makes it finer than one place.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

__all__ = ["block_flow"]

SHARPNESS = 40.0
"""Of the soft minimum, over costs in units of their mean in the picture."""
LAZINESS = 0.1
"""Cost of a whole radius: on an even ground, where all blocks are alike, nothing has moved."""


def block_flow(first: Tensor, second: Tensor, radius: int = 8, block: int = 3) -> Tensor:
    """Where each block of `first` has gone in `second`, in places: x to the right, y down.

    first, second: [B, C, H, W] float. radius: the furthest that is looked for, in places along each axis.
    block: side of the blocks that are compared, odd.
    returns: [B, 2, H, W], x first.
    """
    (height, width), side = first.shape[2:], 2 * radius + 1
    around = pad(second, [radius] * 4, mode="replicate")
    # One offset at a time: all of them at once would be a large tensor, and slower.
    costs = torch.stack(
        [
            (around[:, :, y : y + height, x : x + width] - first).square().mean(1)
            for y in range(side)
            for x in range(side)
        ],
        dim=1,
    )
    # Behind the rim there is nothing: blocks there count what they have.
    costs = avg_pool2d(costs, block, stride=1, padding=block // 2, count_include_pad=False)
    away = torch.arange(-radius, radius + 1, device=first.device, dtype=first.dtype)
    dy, dx = (axis.flatten() for axis in torch.meshgrid(away, away, indexing="ij"))
    scale = costs.mean((1, 2, 3), keepdim=True).clamp(min=1e-8)
    lazy = LAZINESS * ((dx.square() + dy.square()).sqrt() / radius).view(1, -1, 1, 1)
    share = (-SHARPNESS * (costs / scale + lazy)).softmax(1)
    return torch.stack([(share * axis.view(1, -1, 1, 1)).sum(1) for axis in (dx, dy)], dim=1)
