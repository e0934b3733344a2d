"""What a sheet is drawn with in the middle of training: few deterministic steps, and pixels of what they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mezzotint_training.noising import clean_of, eps_of

if TYPE_CHECKING:
    from mezzotint_training.noising import Process

__all__ = ["ddim", "pixels_of"]


def ddim(
    process: Process, output: Callable[[Tensor, Tensor], Tensor], x: Tensor, steps: int, *, clamp: bool = False
) -> Tensor:
    """What noise x [B, ...] ends as (Song et al. 2021, eta 0), as float32.

    output: of the noisy x and times [B] int64, what the network says there, after guidance.
    clamp: whether each clean guess is held to -1..1, as pixels are.
    """
    times = torch.linspace(len(process) - 1, 0, steps, dtype=torch.float64).round().long().tolist()
    clean = x
    for place, time in enumerate(times):
        now = torch.full((len(x),), time, device=x.device)
        alpha, sigma = process.at(now, x)
        clean = clean_of(process.kind, output(x, now).float(), x, alpha, sigma)
        if clamp:
            clean = clean.clamp(-1, 1)
        if place + 1 < len(times):
            following = process.at(torch.full_like(now, times[place + 1]), x)
            x = following[0] * clean + following[1] * eps_of(x, clean, alpha, sigma)
    return clean


def pixels_of(encoder: Any, clean: Tensor) -> Tensor:
    """[B, 3, H, W] in 0..1 of latents, by their autoencoder; of pixels in -1..1 where there is none."""
    if encoder is None:
        return clean / 2 + 0.5
    decoded: Tensor = encoder.decode(clean)
    return decoded.permute(0, 3, 1, 2)
