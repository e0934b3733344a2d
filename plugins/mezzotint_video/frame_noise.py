"""Noise whose frames are related, from a generator, for training; sampling draws its own by counter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["related_frames"]


def related_frames(shape: Sequence[int], frames: str, correlation: float, generator: torch.Generator) -> Tensor:
    """[B, F, C, h, w] of unit variance.

    frames: "independent"; "shared", one frame's for all; "mixed", with `correlation` of any two frames;
    "progressive", with that of neighbours (Ge et al. 2023, section 3); "residual", as mixed, and the middle frame
    has the shared part alone (Luo et al. 2023, eq. 6).
    """

    def drawn(count: int) -> Tensor:
        wanted = (shape[0], count, *shape[2:])
        return torch.randn(wanted, generator=generator, device=generator.device)

    if frames == "shared":
        return drawn(1).expand(tuple(shape))
    own = drawn(shape[1])
    if frames in ("mixed", "residual"):
        shared = drawn(1)
        made = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
        if frames == "residual":
            made[:, shape[1] // 2] = shared[:, 0]
        return made
    if frames == "progressive":
        made, fresh = [own[:, 0]], math.sqrt(1 - correlation**2)
        for frame in own.unbind(1)[1:]:
            made.append(correlation * made[-1] + fresh * frame)
        return torch.stack(made, dim=1)
    return own
