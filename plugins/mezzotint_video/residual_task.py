"""The task of `video.learn_residual`: the loss on what is left of the noise when the base has said its part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mezzotint import Image
from mezzotint_sampling import index_of
from mezzotint_training import clean_of, eps_of, target_of
from mezzotint_video.motion_sheet import SHOWN, lines_of
from mezzotint_video.motion_task import MotionTask, unspread

if TYPE_CHECKING:
    from mezzotint import Conditioning
    from mezzotint_video.temporal_layers import Clip

__all__ = ["ResidualTask"]


class ResidualTask(MotionTask):
    """The base is the denoiser itself, asked about the middle frame; no gradient reaches it."""

    def __init__(self, objective: Any, ctx: Any, reader: Any, *rest: Any) -> None:
        self.base = ctx.realise(objective.denoiser)
        super().__init__(objective, ctx, reader, *rest)
        ratios = (self.process.sigma / self.process.alpha).tolist()
        left = math.sqrt(1 - objective.correlation)
        # What time the network knows a frame by whose shared noise is gone, for each time of the process.
        self.there = torch.tensor([index_of(objective.denoiser.schedule, ratio * left) for ratio in ratios])

    def errors(
        self, rows: Mapping[str, Tensor], times: Tensor, dropped: Tensor, generator: torch.Generator
    ) -> Tensor:
        """[B], the mean squared error of the target of all frames but the middle one (eq. 10, second part)."""
        clean = rows["latents"].float()
        noise = self.noise(clean.shape, generator)
        told, clip = self.told(rows, dropped, generator)
        alpha, sigma = self.process.at(times, clean)
        noisy = alpha * clean + sigma * noise
        shared = self.shared(noisy, times, told, clip)
        seen, known = self.without(noisy, shared, times)
        output = self.network(seen, known, told, clip)
        root = math.sqrt(self.objective.correlation)
        own = (noise - root * shared[:, None]) / math.sqrt(1 - self.objective.correlation)
        left = sigma * math.sqrt(1 - self.objective.correlation)
        scale = (alpha.square() + left.square()).sqrt()
        error = (output - target_of(self.process.kind, clean, own, alpha / scale, left / scale)).square()
        middle = clean.shape[1] // 2
        others = torch.cat([error[:, :middle], error[:, middle + 1 :]], dim=1)
        return others.flatten(1).mean(1)

    @torch.no_grad()
    def shared(self, noisy: Tensor, times: Tensor, told: Conditioning, clip: Clip) -> Tensor:
        """[B, C, h, w]: the noise of the middle frame, as the base says it."""
        middle = noisy.shape[1] // 2
        picture = noisy[:, middle]
        alpha, sigma = self.process.at(times, picture)
        one = unspread(told, clip)
        module = self.base.module
        if hasattr(module, "network"):
            output = module(picture, times, one)
        else:
            output = module(picture, times, encoder_hidden_states=one.context, return_dict=False)[0]
        guess = clean_of(self.process.kind, output.float(), picture, alpha, sigma)
        return eps_of(picture, guess, alpha, sigma)

    def without(self, noisy: Tensor, shared: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """The frames without the shared noise, at unit variance, and the times [B] of those levels."""
        alpha, sigma = self.process.at(times, noisy)
        left = sigma * math.sqrt(1 - self.objective.correlation)
        seen = noisy - math.sqrt(self.objective.correlation) * sigma * shared[:, None]
        return seen / (alpha.square() + left.square()).sqrt(), self.there[times.cpu()].to(times.device).float()

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        """Held-out clips, and what the model makes of them at half of the noise, as one guess."""
        rows = self.held(SHOWN)
        count = len(rows["latents"])
        clean = rows["latents"].float()
        times = torch.full((count,), len(self.process) // 2, device=clean.device)
        noise = self.noise(clean.shape, generator)
        kept = torch.zeros(count, dtype=torch.bool, device=clean.device)
        told, clip = self.told(rows, kept, generator)
        alpha, sigma = self.process.at(times, clean)
        noisy = alpha * clean + sigma * noise
        shared = self.shared(noisy, times, told, clip)
        seen, known = self.without(noisy, shared, times)
        output = self.network(seen, known, told, clip)
        left = sigma * math.sqrt(1 - self.objective.correlation)
        scale = (alpha.square() + left.square()).sqrt()
        guess = clean_of(self.process.kind, output, seen, alpha / scale, left / scale)
        return lines_of(self, clean, guess)
