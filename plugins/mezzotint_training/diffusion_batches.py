"""What else a denoiser is shown in training: a small picture with noise on it, a picture with holes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

__all__ = ["hole_masks", "small_levels", "uniform"]


def uniform(count: int, generator: torch.Generator, *more: int) -> Tensor:
    """[count, ...] in 0..1, on the generator's device."""
    return torch.rand(count, *more, generator=generator, device=generator.device)


def small_levels(levels: Tensor, side: int) -> Tensor:
    """Means over areas in 256 levels, as a picture in a file has.

    levels: [B, 3, H, W] uint8. returns: [B, 3, side, side] uint8.
    """
    return adaptive_avg_pool2d(levels.float(), side).round().to(torch.uint8)


def hole_masks(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Random masks [count, 1, side, side], 1 = keep, each drawn by itself.

    Half have a box cut out, 3 in 8 a brush stroke, the others keep nothing, so that the model also draws whole
    pictures.
    """
    kind = uniform(count, generator)[:, None, None]
    grid = (torch.arange(side, device=generator.device) + 0.5) / side
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)  # [side, side, 2]
    holes = torch.where(kind < 0.5, _boxes(points, count, generator), _strokes(points, count, generator))
    holes = holes | (kind >= 0.875)
    return (~holes)[:, None].float()


def _boxes(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Sides of a fifth to four fifths, anywhere; they may reach over the edge."""
    half = 0.1 + 0.3 * uniform(count, generator, 1, 1, 2)
    centre = uniform(count, generator, 1, 1, 2)
    return ((points - centre).abs() <= half).all(-1)


def _strokes(points: Tensor, count: int, generator: torch.Generator, corners: int = 4) -> Tensor:
    """Broken lines through random corners, with round ends."""
    through = uniform(count, generator, corners, 2)
    width = 0.06 + 0.1 * uniform(count, generator, 1, 1, 1)
    first, along = through[:, None, None, :-1], through.diff(dim=1)[:, None, None]
    away = points[None, :, :, None] - first  # [count, side, side, corners - 1, 2]
    share = ((away * along).sum(-1) / along.square().sum(-1).clamp(min=1e-8)).clamp(0, 1)
    return ((away - share[..., None] * along).norm(dim=-1) <= width).any(-1)
