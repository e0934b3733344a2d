"""Samples in the middle of training: a short deterministic run with guidance, below what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mezzotint_training.drawing import ddim, pixels_of
from mezzotint_training.pictures import sheet_of

if TYPE_CHECKING:
    from mezzotint import Conditioning, Image
    from mezzotint_training.diffusion_task import DiffusionTask

__all__ = ["draw_samples"]

SHOWN = 8


def draw_samples(task: DiffusionTask, generator: torch.Generator, steps: int = 20, guidance: float = 2.0) -> Image:
    """Held-out pictures, what the model is shown of them if anything, and samples told the same."""
    rows = task.held(SHOWN)
    count = len(rows["levels"])
    shown = task.shown(rows, generator)
    dropped = task.dropped(count, generator, share=0.0)
    told = task.told(rows, dropped, shown)
    null = task.told(rows, torch.ones_like(dropped), shown) if task.conditions is not None else None
    drawn = guided(task, told, null, task.clean(rows).shape, generator, steps, guidance)
    side = rows["levels"].shape[-1]
    lines = [rows["levels"].float() / 255]
    if "low_res" in shown:
        lines.append(interpolate(shown["low_res"], size=(side, side)) / 2 + 0.5)
    if "concat" in shown:
        lines.append(pixels_of(task.encoder, shown["concat"][:, :-1]))
    blank = torch.ones(SHOWN - count, 3, side, side)
    lines.append(pixels_of(task.encoder, drawn))
    return sheet_of(torch.cat([part.cpu() for line in lines for part in (line, blank)]))


def guided(
    task: DiffusionTask, told: Conditioning, null: Conditioning | None, shape: torch.Size,
    generator: torch.Generator, steps: int, guidance: float,
) -> Tensor:  # fmt: skip
    """[B, C, h, w] from noise; null: what guidance goes away from, or None."""

    def output(x: Tensor, now: Tensor) -> Tensor:
        seen = task.split(task.unet(x, now, told))[0]
        return seen if null is None else torch.lerp(task.split(task.unet(x, now, null))[0], seen, guidance)

    noise = torch.randn(shape, generator=generator, device=generator.device)
    return ddim(task.process, output, noise, steps, clamp=task.architecture.space == "pixels")
