"""The task of `video.learn_frames`: what one frame of each clip changes, noised, with what came before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import Conditioning, Image, UserError, Weights
from mezzotint_training import Part, Process, Task, freeze, level_weights, target_of
from mezzotint_video.clips import Clips
from mezzotint_video.frame_told import PastFrames, told_frame

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_video.frame_objective import FrameObjective

__all__ = ["FrameTask"]

Rows = Mapping[str, Tensor]
VALIDATED = 32


class FrameTask(Task):
    """Batches are rows of clips: "latents" [B, F, C, h, w] half, "seconds" [B], what the conditions remember."""

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(self, objective: FrameObjective, ctx: Context, reader: Any, seed: int, batch: int) -> None:
        made = objective.architecture
        self.objective, self.architecture = objective, made
        self.conditions = objective.conditioner.open(ctx, reader, seed)
        self.encoder = None if objective.autoencoder is None else ctx.realise(objective.autoencoder)
        self.unet = made.build().to(memory_format=torch.channels_last)
        freeze(self.unet, objective.frozen)
        self.modules = {"unet": self.unet, **self.conditions.modules}
        self.parts = (Part("motion", tuple(self.modules)),)
        self.process = Process(made.schedule)
        self.middle = self.process.range_of(1.0, 8.0)
        self.clips = Clips(reader, batch, seed, self.prepare)
        self._try_one()

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        return self.clips.batch(step, rank)

    def loss(self, batch: Rows, part: str, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(batch["latents"])
        times = self.times(count, generator)
        clean, past = self.drawn(batch, generator)
        dropped = uniform(count, generator) < self.objective.drop
        errors = self.errors(clean, times, self.told(batch, dropped, past), generator)
        return (errors * self.weights_at(times).to(errors)).mean(), {"mse": errors.detach().mean()}

    def drawn(self, rows: Rows, generator: torch.Generator) -> tuple[Tensor, PastFrames]:
        """What a frame of each clip changes of the one before, [B, C, h, w], and what came before, noised.

        The change is that of the noised frame: what is wrong with it is put right.
        """
        clips = rows["latents"].float()
        count, frames = clips.shape[:2]
        strides = torch.tensor(self.objective.strides, device=clips.device)
        stride = strides[(uniform(count, generator) * len(strides)).long()]
        last = (frames - 1) // stride
        number = 1 + (uniform(count, generator) * last).long().clamp(max=last - 1)
        clean, past = past_of(clips, number * stride, stride, rows["seconds"])
        amount = self.objective.noise * uniform(count, generator).view(-1, 1, 1, 1)
        noise = torch.randn(clean.shape, generator=generator, device=clips.device)
        past = PastFrames(past.first, past.previous + amount * noise, past.time, past.step)
        return (clean - past.previous) / self.objective.scale, past

    def told(self, rows: Rows, dropped: Tensor, past: PastFrames) -> Conditioning:
        return told_frame(self.conditions(rows, dropped), past)

    def errors(self, clean: Tensor, times: Tensor, told: Conditioning, generator: torch.Generator) -> Tensor:
        """[B], the mean squared error of the target."""
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        alpha, sigma = self.process.at(times, clean)
        noisy = (alpha * clean + sigma * noise).contiguous(memory_format=torch.channels_last)
        # torch's group norm in channels_last crashes where its weight wants a gradient and its input does not.
        seen = noisy.detach().requires_grad_() if self.objective.frozen and torch.is_grad_enabled() else noisy
        output = self.unet(seen, times, told).float()
        target = target_of(self.process.kind, clean, noise, alpha, sigma)
        return (output - target).square().flatten(1).mean(1)

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] int64, one in each of `count` equal parts of the range, in any order; see `focus`."""
        device = generator.device
        base = (torch.randperm(count, generator=generator, device=device) + uniform(count, generator)) / count
        focused = uniform(count, generator) < self.objective.focus
        low, high = self.middle
        return torch.where(focused, low + base * (high - low), base * len(self.process)).long()

    def weights_at(self, times: Tensor) -> Tensor:
        """[B] float64: how much each level counts."""
        place = times.cpu()
        alpha, sigma = self.process.alpha[place], self.process.sigma[place]
        kind, wanted = self.process.kind, self.objective
        made: Tensor = level_weights(kind, wanted.weighting, wanted.gamma, alpha, sigma)
        return made.to(times.device)

    def weights(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        record = {**self.architecture.record(), "frames": {"scale": self.objective.scale}}
        return {"unet": pack_network(self.unet, denoiser=record), **self.conditions.parts()}

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Errors of the target on held-out clips, with fixed noise: "loss", and by quarter of the levels.

        "guess": of the frame that is guessed from pure noise; "still": of taking the frame before for it.
        """
        rows = self.held(VALIDATED)
        count, found = len(rows["latents"]), {}
        clean, past = self.drawn(rows, generator)
        told = self.told(rows, torch.zeros(count, dtype=torch.bool, device=generator.device), past)
        for quarter in range(4):
            times = ((quarter + uniform(count, generator)) / 4 * len(self.process)).long()
            found[f"mse{quarter}"] = self.errors(clean, times, told, generator).mean().item()
        last = torch.full((count,), len(self.process) - 1, device=generator.device)
        at_end = self.errors(clean, last, told, generator).mean().item()
        scale = self.objective.scale**2
        # From pure noise, an error of v is one of what is clean: the last level's sigma is almost 1.
        return {
            "loss": sum(found.values()) / 4, **found, "guess": at_end * scale,
            "still": clean.square().mean().item() * scale,
        }  # fmt: skip

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        from mezzotint_video.frame_sheet import draw_frames

        return draw_frames(self, generator)

    def held(self, most: int) -> dict[str, Tensor]:
        """Held-out clips, on the modules' device."""
        device = next(self.unet.parameters()).device
        return {name: value.to(device) for name, value in self.clips.held_out(most).items()}

    def prepare(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """An item's rows, from its levels [F, H, W, 3] uint8."""
        made = self.architecture
        side = made.sample_size * made.downscale
        if tuple(levels.shape[1:3]) != (side, side):
            raise UserError(
                f"video.learn_frames: the network is for clips of {side}x{side} pixels, got {list(levels.shape)}"
            )
        if len(levels) <= max(self.objective.strides):
            raise UserError(
                f"video.learn_frames: a clip of {len(levels)} frames has no next one at the stride "
                f"{max(self.objective.strides)}; give longer clips or smaller strides"
            )
        pixels = levels.float() / 255
        if self.encoder is None:
            latents = pixels.permute(0, 3, 1, 2) * 2 - 1
        else:
            with torch.no_grad():
                latents = self.encoder.encode(pixels).cpu().float()
        # Without a rate a clip lasts one second, as video.next_frames takes it to.
        seconds = torch.tensor([len(levels) / float(item.get("fps", len(levels)))])
        return {"latents": latents.half()[None], "seconds": seconds, **self.conditions.read([item])}

    def _try_one(self) -> None:
        """Raises: UserError: what is told is not what the network reads, before any training."""
        rows = self.held(1)
        one = torch.ones(1, dtype=torch.long)
        clean, past = past_of(rows["latents"].float(), one, one, rows["seconds"])
        with torch.no_grad():
            told = self.told(rows, torch.ones(1, dtype=torch.bool), past)
            self.unet.check(clean, told)


def past_of(clips: Tensor, number: Tensor, stride: Tensor, seconds: Tensor) -> tuple[Tensor, PastFrames]:
    """The frames of those numbers, and what came before them.

    clips: [B, F, C, h, w]. number, stride: [B] int64, number at least stride and less than F. seconds: [B].
    """
    at = torch.arange(len(clips), device=clips.device)
    time, step = (value * seconds / (clips.shape[1] - 1) for value in (number, stride))
    return clips[at, number], PastFrames(clips[:, 0], clips[at, number - stride], time, step)


def uniform(count: int, generator: torch.Generator) -> Tensor:
    """[count] in 0..1, on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device)
