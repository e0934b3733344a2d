"""Samples in the middle of training: held-out clips, and what the model makes of their first frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint_training import clean_of, eps_of, sheet_of
from mezzotint_video.frame_told import PastFrames

if TYPE_CHECKING:
    from mezzotint import Image
    from mezzotint_video.frame_task import FrameTask

__all__ = ["draw_frames"]

SHOWN = 6
FRAMES = 8


def draw_frames(task: FrameTask, generator: torch.Generator, steps: int = 8) -> Image:
    """For each of a few held-out clips a line of its frames, and a line that was made of the first.

    Both have up to 8 frames, evenly spread.
    """
    rows = task.held(SHOWN)
    clips = rows["latents"].float()
    shown = torch.linspace(0, clips.shape[1] - 1, min(FRAMES, clips.shape[1])).round().long()
    real = clips[:, shown]
    made = [real[:, 0]]
    times = (shown / (clips.shape[1] - 1)).to(clips) * rows["seconds"][:, None]
    for place in range(1, len(shown)):
        past = PastFrames(real[:, 0], made[-1], times[:, place], times[:, place] - times[:, place - 1])
        made.append(made[-1] + task.objective.scale * _ddim(task, rows, past, generator, steps))
    lines = [line for n in range(len(real)) for line in (real[n], torch.stack(made, dim=1)[n])]
    return sheet_of(torch.cat([_pixels(task, line) for line in lines]), columns=len(shown), enlarged=1)


def _ddim(
    task: FrameTask, rows: dict[str, Tensor], past: PastFrames, generator: torch.Generator, steps: int
) -> Tensor:
    """[B, C, h, w], one change from noise (Song et al. 2021, eta 0), without guidance."""
    count, device = len(past.first), generator.device
    told = task.told(rows, torch.zeros(count, dtype=torch.bool, device=device), past)
    x = torch.randn(past.first.shape, generator=generator, device=device)
    times = torch.linspace(len(task.process) - 1, 0, steps, dtype=torch.float64).round().long().tolist()
    for place, time in enumerate(times):
        now = torch.full((count,), time, device=device)
        alpha, sigma = task.process.at(now, x)
        clean = clean_of(task.process.kind, task.unet(x, now, told).float(), x, alpha, sigma)
        if place + 1 == len(times):
            return clean
        following = task.process.at(torch.full_like(now, times[place + 1]), x)
        x = following[0] * clean + following[1] * eps_of(x, clean, alpha, sigma)
    return x


def _pixels(task: FrameTask, clean: Tensor) -> Tensor:
    """[F, 3, H, W] in 0..1."""
    if task.encoder is None:
        return clean / 2 + 0.5
    decoded: Tensor = task.encoder.decode(clean)
    return decoded.permute(0, 3, 1, 2)
