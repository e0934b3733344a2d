"""Samples in the middle of training: held-out clips, and what the model makes of their first frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint_training import ddim, pixels_of, sheet_of
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
        made.append(made[-1] + task.objective.scale * _change(task, rows, past, generator, steps))
    lines = [line for n in range(len(real)) for line in (real[n], torch.stack(made, dim=1)[n])]
    return sheet_of(torch.cat([pixels_of(task.encoder, line) for line in lines]), columns=len(shown), enlarged=1)


def _change(
    task: FrameTask, rows: dict[str, Tensor], past: PastFrames, generator: torch.Generator, steps: int
) -> Tensor:
    """[B, C, h, w], one change from noise, without guidance."""
    device = generator.device
    told = task.told(rows, torch.zeros(len(past.first), dtype=torch.bool, device=device), past)
    noise = torch.randn(past.first.shape, generator=generator, device=device)
    return ddim(task.process, lambda x, now: task.unet(x, now, told), noise, steps)
