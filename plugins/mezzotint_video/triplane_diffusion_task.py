"""The denoiser of planes in training: a first clip after nothing, and a clip after the one before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import Conditioning, Image, UserError, Weights
from mezzotint_training import Part, Process, Task, ddim, sheet_of, target_of
from mezzotint_video.clips import Clips

if TYPE_CHECKING:
    from mezzotint_training import Conditions
    from mezzotint_video.triplane_model import PlaneModel
    from mezzotint_video.triplane_objectives import PlaneDiffusionObjective

__all__ = ["PlaneDiffusionTask"]

Rows = Mapping[str, Tensor]
SHOWN = 4


class PlaneDiffusionTask(Task):
    """Batches: "first" and "second" [B, C, rows, side], the planes of a clip's two halves, and what is told.

    With probability `previous` the second is to be made after the first, else the first after zeros: one network
    learns p(x) and p(x | clip before), Yu et al. 2023, section 3.3.
    """

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(
        self, objective: PlaneDiffusionObjective, network: nn.Module, conditions: Conditions | None,
        encoder: PlaneModel, reader: Any, seed: int, batch: int,
    ) -> None:  # fmt: skip
        self.objective, self.network, self.conditions, self.encoder = objective, network, conditions, encoder
        self.modules = {"unet": network, **(conditions.modules if conditions else {})}
        self.parts = (Part("denoiser", tuple(self.modules)),)
        self.process = Process(objective.architecture.schedule)
        self.clips = Clips(reader, batch, seed, self._prepare)
        rows = self.clips.items([0])
        with torch.no_grad():
            told = self.told(rows, torch.zeros(1, dtype=torch.bool), torch.zeros_like(rows["first"]))
            network(rows["first"], torch.zeros(1), told)

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        return self.clips.batch(step, rank)

    def loss(self, batch: Rows, part: str, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(batch["first"])
        follows = uniform(count, generator) < self.objective.previous
        dropped = uniform(count, generator) < self.objective.drop
        places = (torch.arange(count, device=generator.device) + uniform(count, generator)) / count
        errors = self.errors(batch, follows, dropped, (places * len(self.process)).long(), generator)
        return errors.mean(), {"mse": errors.detach().mean()}

    def weights(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        meta = self.conditions.meta() if self.conditions else {}
        made = pack_network(self.network, denoiser=self.objective.architecture.record(), **meta)
        return {"unet": made, **(self.conditions.parts() if self.conditions else {})}

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """Errors of the target on held-out clips: of first clips, and of clips after one."""
        rows, found = self._held(64), {}
        count = len(rows["first"])
        kept = torch.zeros(count, dtype=torch.bool, device=generator.device)
        for name, follows in (("first", kept), ("next", ~kept)):
            times = ((torch.arange(count, device=generator.device) + 0.5) / count * len(self.process)).long()
            found[f"mse_{name}"] = self.errors(rows, follows, kept, times, generator).mean().item()
        return {"loss": (found["mse_first"] + found["mse_next"]) / 2, **found}

    @torch.no_grad()
    def sheet(self, generator: torch.Generator) -> Image:
        """Held-out clips, and below each what is made of their captions: a first clip, and one after it."""
        rows = self._held(SHOWN)
        first = self.drawn(rows, torch.zeros_like(rows["first"]), generator)
        second = self.drawn(rows, first, generator)
        real, made = (
            torch.cat([self.encoder.decode(half) for half in halves], dim=1)
            for halves in ((rows["first"], rows["second"]), (first, second))
        )
        lines = torch.stack([real, made], dim=1).flatten(0, 2).permute(0, 3, 1, 2)
        return sheet_of(lines, columns=real.shape[1], enlarged=1)

    def errors(
        self, rows: Rows, follows: Tensor, dropped: Tensor, times: Tensor, generator: torch.Generator
    ) -> Tensor:
        """[B], mean squared error of the target."""
        where = follows[:, None, None, None]
        clean = torch.where(where, rows["second"], rows["first"])
        before = torch.where(where, rows["first"], torch.zeros_like(clean))
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        alpha, sigma = self.process.at(times, clean)
        output = self.network(alpha * clean + sigma * noise, times, self.told(rows, dropped, before)).float()
        error = output - target_of(self.process.kind, clean, noise, alpha, sigma)
        return error.square().flatten(1).mean(1)

    def told(self, rows: Rows, dropped: Tensor, before: Tensor) -> Conditioning:
        """What the network reads of it: a text's tokens, and the clip before or zeros."""
        text = Conditioning() if self.conditions is None else self.conditions(rows, dropped)
        config = self.objective.architecture.config
        return Conditioning(
            context=text.context if config["context"] else None, concat=before if config["previous"] else None
        )

    def drawn(
        self, rows: Rows, before: Tensor, generator: torch.Generator, steps: int = 20, guidance: float = 2.0
    ) -> Tensor:
        """Planes from noise, guided away from no text."""
        count, device = len(before), generator.device
        kept = torch.zeros(count, dtype=torch.bool, device=device)
        told, null = self.told(rows, kept, before), self.told(rows, ~kept, before)

        def output(x: Tensor, now: Tensor) -> Tensor:
            return torch.lerp(self.network(x, now, null), self.network(x, now, told), guidance)

        noise = torch.randn(before.shape, generator=generator, device=device)
        return ddim(self.process, output, noise, steps)

    def _held(self, most: int) -> dict[str, Tensor]:
        device = next(self.network.parameters()).device
        return {name: value.to(device) for name, value in self.clips.held_out(most).items()}

    def _prepare(self, levels: Tensor, item: Mapping[str, Any]) -> dict[str, Tensor]:
        frames = self.encoder.frames
        if len(levels) < 2 * frames:
            raise UserError(
                f"video.learn_plane_diffusion: learns clips of {frames} frames and what follows them, so it wants "
                f"clips of {2 * frames}; got {len(levels)}"
            )
        halves = torch.stack([levels[:frames], levels[frames : 2 * frames]]).float() / 255
        with torch.no_grad():
            planes = self.encoder.encode(halves).cpu().float()
        told = self.conditions.read([item]) if self.conditions else {}
        return {"first": planes[:1], "second": planes[1:], **told}


def uniform(count: int, generator: torch.Generator) -> Tensor:
    """[count] in 0..1, on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device)
