"""Samples in the middle of training: held-out clips, and clips drawn for their words, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint_training import ddim, pixels_of, sheet_of

if TYPE_CHECKING:
    from mezzotint import Image
    from mezzotint_video.motion_task import MotionTask

__all__ = ["SHOWN", "draw_clips", "lines_of"]

SHOWN = 4


def draw_clips(task: MotionTask, generator: torch.Generator, steps: int = 10, guidance: float = 2.5) -> Image:
    """For each of a few held-out clips a line of its frames, and a line of the sample that was told the same."""
    rows = task.held(SHOWN)
    return lines_of(task, rows["latents"].float(), guided(task, rows, generator, steps, guidance))


def lines_of(task: MotionTask, real: Tensor, drawn: Tensor) -> Image:
    """[B, F, C, h, w], both: a line of a clip's frames, and under it one of what was drawn for it."""
    lines = [line for pair in zip(real, drawn, strict=True) for line in pair]
    pixels = torch.cat([pixels_of(task.encoder, line) for line in lines])
    return sheet_of(pixels, columns=real.shape[1], enlarged=1)


def guided(
    task: MotionTask, rows: dict[str, Tensor], generator: torch.Generator, steps: int, guidance: float
) -> Tensor:
    """[B, F, C, h, w] from noise, guided away from no words."""
    shape = rows["latents"].shape
    count, device = shape[0], generator.device
    state = generator.get_state()
    told = []
    for missing in (False, True):
        # The same side channels for both.
        generator.set_state(state)
        dropped = torch.full((count,), missing, dtype=torch.bool, device=device)
        told.append(task.told(rows, dropped, generator))

    def output(x: Tensor, now: Tensor) -> Tensor:
        seen, unseen = (task.network(x, now, *one) for one in told)
        return torch.lerp(unseen, seen, guidance)

    noise = task.noise(shape, generator)
    return ddim(task.process, output, noise, steps, clamp=task.encoder is None)
