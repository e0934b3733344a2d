"""Noise on the small picture that a super-resolution model starts from."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["noised_low_res"]


def noised_low_res(low_res: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """cos(pi u / 2) low_res + sin(pi u / 2) noise, at a level u in 0..1 per sample; 0 leaves it exactly as it is.

    low_res, noise: [B, C, h, w], pictures in -1..1 and standard normals. level: [B]. One function for training and
    sampling, as the network is told the level. Source: noise conditioning augmentation, Ho et al. 2022
    ("Cascaded diffusion models"), Saharia et al. 2022, with the cosine schedule.
    """
    angle = level.to(low_res).view(-1, *[1] * (low_res.ndim - 1)) * (math.pi / 2)
    return angle.cos() * low_res + angle.sin() * noise
