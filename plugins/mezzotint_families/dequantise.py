"""Pictures to unbounded numbers and back, with the log-determinant of all that is done to them.

Eight-bit levels are spread over their cells with noise, squeezed away from 0 and 1, and passed through the logit.
Dinh et al. 2017, sec. 4.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mezzotint_families.randomness import uniform_like

__all__ = ["bits_per_dimension", "dequantise", "from_logit", "to_logit"]

MARGIN = 0.05


def dequantise(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Levels 0..255 (any dtype) to floats in 0..1: (level + u) / 256 with u uniform in [0, 1)."""
    levels = pixels.float() if not pixels.is_floating_point() else pixels
    return (levels + uniform_like(levels, generator)) / 256


def to_logit(x: Tensor, margin: float = MARGIN) -> tuple[Tensor, Tensor]:
    """logit(margin + (1 - 2 margin) x) of x in 0..1, and the log-determinant of each sample, [B]."""
    inside = margin + (1 - 2 * margin) * x
    y = inside.log() - (-inside).log1p()
    slope = softplus(y) + softplus(-y) + math.log(1 - 2 * margin)
    return y, slope.flatten(1).sum(1)


def from_logit(y: Tensor, margin: float = MARGIN) -> Tensor:
    """The inverse of `to_logit`."""
    return (y.sigmoid() - margin) / (1 - 2 * margin)


def bits_per_dimension(log_density: Tensor, dimensions: int) -> Tensor:
    """Bits that one of the 256-level pixel values costs, from the density of x in 0..1 in nats, [B]."""
    return 8 - log_density / (dimensions * math.log(2))
