"""Samples in the middle of training: a short deterministic run with guidance, below what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mezzotint_training.noising import clean_of, eps_of
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
    drawn = ddim(task, told, null, task.clean(rows).shape, generator, steps, guidance)
    side = rows["levels"].shape[-1]
    lines = [rows["levels"].float() / 255]
    if "low_res" in shown:
        lines.append(interpolate(shown["low_res"], size=(side, side)) / 2 + 0.5)
    if "concat" in shown:
        lines.append(_pixels(task, shown["concat"][:, :-1]))
    blank = torch.ones(SHOWN - count, 3, side, side)
    return sheet_of(torch.cat([part.cpu() for line in (*lines, _pixels(task, drawn)) for part in (line, blank)]))


def ddim(
    task: DiffusionTask, told: Conditioning, null: Conditioning | None, shape: torch.Size,
    generator: torch.Generator, steps: int, guidance: float,
) -> Tensor:  # fmt: skip
    """[B, C, h, w] from noise (Song et al. 2021, eta 0); null: what guidance goes away from, or None."""
    x = torch.randn(shape, generator=generator, device=generator.device)
    last = len(task.process) - 1
    times = torch.linspace(last, 0, steps, dtype=torch.float64).round().long().tolist()
    for place, time in enumerate(times):
        now = torch.full((shape[0],), time, device=x.device)
        alpha, sigma = task.process.at(now, x)
        output = task.split(task.unet(x, now, told))[0]
        if null is not None:
            output = torch.lerp(task.split(task.unet(x, now, null))[0], output, guidance)
        clean = clean_of(task.process.kind, output.float(), x, alpha, sigma)
        if task.architecture.space == "pixels":
            clean = clean.clamp(-1, 1)
        if place + 1 == len(times):
            return clean
        following = task.process.at(torch.full_like(now, times[place + 1]), x)
        x = following[0] * clean + following[1] * eps_of(x, clean, alpha, sigma)
    return x


def _pixels(task: DiffusionTask, clean: Tensor) -> Tensor:
    """[B, 3, H, W] in 0..1."""
    if task.encoder is None:
        return clean / 2 + 0.5
    decoded: Tensor = task.encoder.decode(clean)
    return decoded.permute(0, 3, 1, 2)
