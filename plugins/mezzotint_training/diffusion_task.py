"""A denoiser in training: batches, loss, figures on held-out pictures, samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import Conditioning, Image, UserError, Weights
from mezzotint_training.diffusion_batches import hole_masks, small_levels, uniform
from mezzotint_training.diffusion_checks import check_told
from mezzotint_training.diffusion_sheet import draw_samples
from mezzotint_training.learned_variance import VarianceBound
from mezzotint_training.noising import Process, clean_of, level_weights, target_of
from mezzotint_training.objective import Part, Task
from mezzotint_training.pictures import Pictures

if TYPE_CHECKING:
    from mezzotint_training.conditioner import Conditions
    from mezzotint_training.diffusion import DiffusionObjective

__all__ = ["DiffusionTask"]

Rows = Mapping[str, Tensor]
VALIDATED = 64


class DiffusionTask(Task):
    """Batches are rows of items: "levels" uint8 or "latents", and what the conditions remember."""

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(
        self, objective: DiffusionObjective, unet: nn.Module, conditions: Conditions | None, encoder: Any,
        reader: Any, seed: int, batch: int,
    ) -> None:  # fmt: skip
        made = objective.architecture
        self.objective, self.architecture, self.config = objective, made, made.config
        self.conditions, self.encoder = conditions, encoder
        self.unet = unet.to(memory_format=torch.channels_last)
        freeze(self.unet, objective.frozen)
        self.modules = {"unet": self.unet, **(conditions.modules if conditions else {})}
        self.parts = (Part("denoiser", tuple(self.modules)),)
        self.process = Process(made.schedule)
        self.middle = self.process.range_of(1.0, 8.0)
        learnt = self.config.get("out_channels", made.channels) == 2 * made.channels
        self.bound = VarianceBound(self.process, made.space == "pixels") if learnt else None
        self.pictures = Pictures(reader, made.sample_size * made.downscale, batch, seed, self._prepare)
        self._try_one()

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        return self.pictures.batch_items(step, rank)

    def loss(self, batch: Rows, part: str, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(batch["levels"])
        times = self.times(count, generator)
        shown = self.shown(batch, generator)
        told = self.told(batch, self.dropped(count, generator), shown)
        errors, bound = self.errors(self.clean(batch), times, told, generator)
        loss, figures = (errors * self.weights_at(times).to(errors)).mean(), {"mse": errors.detach().mean()}
        if bound is not None:
            loss = loss + self.objective.variance_weight * len(self.process) * bound.mean()
            figures["bits"] = len(self.process) * bound.detach().mean()
        return loss, figures

    def weights(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        meta = self.conditions.meta() if self.conditions else {}
        unet = pack_network(self.unet, denoiser=self.architecture.record(), **meta)
        return {"unet": unet, **(self.conditions.parts() if self.conditions else {})}

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Errors of the target on held-out pictures, with fixed noise: "loss", and by quarter of the levels."""
        rows = self.held(VALIDATED)
        count, found = len(rows["levels"]), {}
        told = self.told(rows, self.dropped(count, generator, share=0.0), self.shown(rows, generator))
        for quarter in range(4):
            times = ((quarter + uniform(count, generator)) / 4 * len(self.process)).long()
            errors, _ = self.errors(self.clean(rows), times, told, generator)
            found[f"mse{quarter}"] = errors.mean().item()
        return {"loss": sum(found.values()) / 4, **found}

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        return draw_samples(self, generator)

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] int64, one in each of `count` equal parts of the range (stratified), see `focus`."""
        base = (torch.arange(count, device=generator.device) + uniform(count, generator)) / count
        focused = uniform(count, generator) < self.objective.focus
        low, high = self.middle
        return torch.where(focused, low + base * (high - low), base * len(self.process)).long()

    def dropped(self, count: int, generator: torch.Generator, share: float | None = None) -> Tensor:
        """[count] bool, or [count, parts] for conditions whose parts are dropped each by itself."""
        own = self.conditions.drops if self.conditions else None
        if own is None:
            return uniform(count, generator) < (self.objective.drop if share is None else share)
        shares = torch.tensor(own, device=generator.device) if share is None else share
        return uniform(count, generator, len(own)) < shares

    def shown(self, rows: Rows, generator: torch.Generator) -> dict[str, Tensor]:
        """What the network sees of the picture itself: low_res and its level, the known part."""
        wanted, count = self.objective, len(rows["levels"])
        shown = {}
        if wanted.low_res:
            from mezzotint_sampling import noised_low_res

            small = small_levels(rows["levels"], wanted.low_res).float() / 127.5 - 1
            shown["low_res"] = small
            if self.config.get("level"):
                level = uniform(count, generator) * wanted.low_res_noise
                noise = torch.randn(small.shape, generator=generator, device=generator.device)
                shown |= {"low_res": noised_low_res(small, level, noise), "low_res_level": level}
        if wanted.inpaint:
            keep = hole_masks(count, self.architecture.sample_size, generator)
            shown["concat"] = torch.cat([self.clean(rows) * keep, keep], dim=1)
        return shown

    def told(self, rows: Rows, dropped: Tensor, shown: Mapping[str, Tensor]) -> Conditioning:
        """What the network is told, without what it does not read."""
        told = Conditioning() if self.conditions is None else self.conditions(rows, dropped)
        reads = {
            "context": self.config.get("context"), "mask": self.config.get("context"),
            "pooled": self.config.get("pooled"), "label": self.config.get("classes"),
        }  # fmt: skip
        return dataclasses.replace(told, **{n: None for n, width in reads.items() if not width}, **shown)

    def clean(self, rows: Rows) -> Tensor:
        """[B, C, h, w] float32: pictures in -1..1, or latents."""
        if "latents" in rows:
            return rows["latents"].float()
        return rows["levels"].float() / 127.5 - 1

    def errors(
        self, clean: Tensor, times: Tensor, told: Conditioning, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """[B] mean error of the target, and [B] of the variance's bound in bits, if it is learnt."""
        noise = torch.randn(clean.shape, generator=generator, device=generator.device)
        alpha, sigma = self.process.at(times, clean)
        noisy = (alpha * clean + sigma * noise).contiguous(memory_format=torch.channels_last)
        # torch's group norm in channels_last crashes where its weight wants a gradient and its input does not.
        seen = noisy.detach().requires_grad_() if self.objective.frozen and torch.is_grad_enabled() else noisy
        output, said = self.split(self.unet(seen, times, told).float())
        error = output - target_of(self.process.kind, clean, noise, alpha, sigma)
        error = error.abs() if self.objective.loss == "l1" else error.square()
        bound = None
        if self.bound is not None and said is not None:
            guess = clean_of(self.process.kind, output.detach(), noisy, alpha, sigma)
            bound = self.bound(clean, noisy, guess, said, times)
        return error.flatten(1).mean(1), bound

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prediction, and what is said of the variance."""
        channels = self.architecture.channels
        return output[:, :channels], output[:, channels:] if output.shape[1] > channels else None

    def weights_at(self, times: Tensor) -> Tensor:
        """[B] float64."""
        from mezzotint_training.diffusion import GAMMA

        wanted, place = self.objective, times.cpu()
        gamma = GAMMA[wanted.weighting] if wanted.gamma is None else wanted.gamma
        alpha, sigma = self.process.alpha[place], self.process.sigma[place]
        return level_weights(self.process.kind, wanted.weighting, gamma, alpha, sigma).to(times.device)

    def held(self, most: int) -> dict[str, Tensor]:
        """Held-out items, on the modules' device."""
        device = next(self.unet.parameters()).device
        return {n: v.to(device) for n, v in self.pictures.items(self.pictures.held_items(most)).items()}

    def _prepare(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        made = self.conditions.read([item]) if self.conditions else {}
        if self.encoder is not None:
            with torch.no_grad():
                made["latents"] = self.encoder.encode(levels.permute(0, 2, 3, 1).float() / 255).cpu().float()
        return made

    def _try_one(self) -> None:
        """Raises: UserError: what the conditions tell is not what the network reads, before any training."""
        told = None
        if self.conditions is not None:
            own = self.conditions.drops
            dropped = torch.ones((1,) if own is None else (1, len(own)), dtype=torch.bool)
            with torch.no_grad():
                told = self.conditions(self.held(1), dropped)
        check_told(told, self.config)


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Leave parameters as they are whose names fit a pattern. Raises: UserError: none does, or all do."""
    from fnmatch import fnmatchcase

    names = dict(network.named_parameters())
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            example = next(iter(names))
            raise UserError(f"training.diffusion: frozen {pattern!r} fits no parameter, such as {example}")
        for name in found:
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise UserError("training.diffusion: frozen leaves nothing to train")
