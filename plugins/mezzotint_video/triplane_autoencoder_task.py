"""The autoencoder of planes in training: batches of windows, the loss, how near held-out clips come back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import Image, UserError, Weights
from mezzotint_training import Part, Task, sheet_of
from mezzotint_video.clips import Clips
from mezzotint_video.triplane import Planes, stack_planes
from mezzotint_video.triplane_autoencoder import TriplaneAutoencoder

if TYPE_CHECKING:
    from mezzotint_video.triplane_objectives import PlaneAutoencoderObjective

__all__ = ["PlaneAutoencoderTask", "psnr", "small_clip"]


def small_clip(levels: Tensor, size: int) -> Tensor:
    """[3, F, size, size] uint8 from [F, H, W, 3] uint8: means over areas.

    Raises: UserError: frames that are not square, or no multiple of the size.
    """
    _, height, width, _ = levels.shape
    if height != width or height % size:
        raise UserError(
            f"planes are made of square clips whose side is a multiple of {size}, got {height}x{width}"
        )
    pixels = nn.functional.avg_pool2d(levels.permute(0, 3, 1, 2).float(), height // size)
    return pixels.round().to(torch.uint8).transpose(0, 1).contiguous()


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """[B] in decibels, of clips in 0..1."""
    error = (first - second).square().flatten(1).mean(1)
    return -10 * error.clamp(min=1e-10).log10()


class PlaneAutoencoderTask(Task):
    """Batches: "levels" [B, 3, F', S, S] uint8, of which each loss takes a window of F frames per clip."""

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part] = (Part("autoencoder", ("autoencoder",)),)

    def __init__(
        self, objective: PlaneAutoencoderObjective, model: TriplaneAutoencoder, reader: Any, seed: int, batch: int
    ) -> None:
        self.objective, self.model, self.modules = objective, model, {"autoencoder": model}
        self.frames = int(model.config["frames"])
        self.clips = Clips(reader, batch, seed, self._prepare)
        self.clips.items([0])

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        return self.clips.batch(step, rank)

    def loss(
        self, batch: Mapping[str, Tensor], part: str, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        clips = self._windows(batch["levels"], generator)
        planes = self.model.encode(clips)
        if self.objective.noise:
            planes = Planes(*(self._noised(plane, generator) for plane in planes))
        error = self.model.decode(planes) - clips
        square = error.square().mean()
        return square + self.objective.l1 * error.abs().mean(), {"mse": square.detach() / 4}

    def weights(self) -> Weights:
        from mezzotint_models import pack_network

        planes = stack_planes(self._encoded(self._held(32)))
        made = pack_network(self.model)
        digest = hashlib.sha256()
        for name in sorted(made.tensors):
            digest.update(made.tensors[name].float().numpy().tobytes())
        record = {
            "channels": self.model.config["channels"], "downscale": self.model.config["patch"],
            "space": f"planes:{digest.hexdigest()[:16]}", "scale": round(1 / planes.std().item(), 4),
        }  # fmt: skip
        return made.replace(meta={**made.meta, "planes": record})

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """psnr: mean over held-out clips, in decibels. psnr_moving: over what differs from the first frame."""
        clips = self._held(64)
        back = self.model.decode(self._encoded(clips)).clamp(-1, 1)
        true, made = clips / 2 + 0.5, back / 2 + 0.5
        moving = ((true - true[:, :, :1]).abs().amax(1, keepdim=True) > 0.1).expand_as(true)
        error = (true - made).square()
        return {
            "loss": error.mean().item(),
            "psnr": psnr(true, made).mean().item(),
            "psnr_worst": psnr(true, made).min().item(),
            "psnr_moving": (-10 * error[moving].mean().log10()).item() if moving.any() else 0.0,
        }

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        """Held-out clips, and below each what comes back."""
        clips = self._held(6)
        back = self.model.decode(self._encoded(clips))
        lines = torch.stack([clips, back], dim=1).flatten(0, 1).transpose(1, 2).flatten(0, 1)
        return sheet_of(lines / 2 + 0.5, columns=self.frames)

    def _held(self, most: int) -> Tensor:
        """Held-out clips [N, 3, F, S, S] in -1..1: their last frames, since windows may begin anywhere."""
        levels = self.clips.held_out(most)["levels"].to(next(self.model.parameters()).device)
        return levels[:, :, -self.frames :].float() / 127.5 - 1

    @torch.no_grad()
    def _encoded(self, clips: Tensor) -> Planes:
        return self.model.encode(clips)

    def _windows(self, levels: Tensor, generator: torch.Generator) -> Tensor:
        spare = levels.shape[2] - self.frames
        first = torch.randint(spare + 1, (len(levels),), generator=generator, device=levels.device)
        cut = [clip[:, start : start + self.frames] for clip, start in zip(levels, first.tolist(), strict=True)]
        return torch.stack(cut).float() / 127.5 - 1

    def _noised(self, plane: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(plane.shape, generator=generator, device=plane.device)
        return plane + self.objective.noise * noise

    def _prepare(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        if len(levels) < self.frames:
            raise UserError(f"the planes are of {self.frames} frames, and a clip has {len(levels)}")
        return {"levels": small_clip(levels, int(self.model.config["size"]))[None]}
