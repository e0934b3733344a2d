"""Samples in the middle of training: held-out clips, and clips drawn for their words, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint_training import clean_of, eps_of, sheet_of

if TYPE_CHECKING:
    from mezzotint import Image
    from mezzotint_video.motion_task import MotionTask

__all__ = ["SHOWN", "draw_clips", "lines_of"]

SHOWN = 4


def draw_clips(task: MotionTask, generator: torch.Generator, steps: int = 10, guidance: float = 2.5) -> Image:
    """For each of a few held-out clips a line of its frames, and a line of the sample that was told the same."""
    rows = task.held(SHOWN)
    return lines_of(task, rows["latents"].float(), ddim(task, rows, generator, steps, guidance))


def lines_of(task: MotionTask, real: Tensor, drawn: Tensor) -> Image:
    """[B, F, C, h, w], both: a line of a clip's frames, and under it one of what was drawn for it."""
    lines = [line for pair in zip(real, drawn, strict=True) for line in pair]
    pixels = torch.cat([_pixels(task, line) for line in lines])
    return sheet_of(pixels, columns=real.shape[1], enlarged=1)


def ddim(
    task: MotionTask, rows: dict[str, Tensor], generator: torch.Generator, steps: int, guidance: float
) -> Tensor:
    """[B, F, C, h, w] from noise (Song et al. 2021, eta 0), guided away from no words."""
    shape = rows["latents"].shape
    count, device = shape[0], generator.device
    state = generator.get_state()
    told = []
    for missing in (False, True):
        # The same side channels for both.
        generator.set_state(state)
        dropped = torch.full((count,), missing, dtype=torch.bool, device=device)
        told.append(task.told(rows, dropped, generator))
    x = task.noise(shape, generator)
    times = torch.linspace(len(task.process) - 1, 0, steps, dtype=torch.float64).round().long().tolist()
    for place, time in enumerate(times):
        now = torch.full((count,), time, device=device)
        alpha, sigma = task.process.at(now, x)
        seen, unseen = (task.network(x, now, *one) for one in told)
        clean = clean_of(task.process.kind, torch.lerp(unseen, seen, guidance), x, alpha, sigma)
        if task.encoder is None:
            clean = clean.clamp(-1, 1)
        if place + 1 == len(times):
            return clean
        following = task.process.at(torch.full_like(now, times[place + 1]), x)
        x = following[0] * clean + following[1] * eps_of(x, clean, alpha, sigma)
    return x


def _pixels(task: MotionTask, clean: Tensor) -> Tensor:
    """[F, 3, H, W] in 0..1."""
    if task.encoder is None:
        return clean / 2 + 0.5
    decoded: Tensor = task.encoder.decode(clean)
    return decoded.permute(0, 3, 1, 2)
