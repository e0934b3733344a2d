"""The task of Imagic's trainings: the diffusion loss on one picture, for an encoding or for a denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mezzotint import UserError, Weights
from mezzotint_training.noising import Process, target_of
from mezzotint_training.objective import Part, Task
from mezzotint_training.tuning_task import Told

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_training.imagic import PictureObjective

__all__ = ["PictureTask", "open_picture"]

VALIDATED = 16


class Encoding(nn.Module):
    """What a denoiser is told, as a parameter: every token of it learns. context: [1, L, D] float32."""

    def __init__(self, context: Tensor) -> None:
        super().__init__()
        self.context = nn.Parameter(context.detach().float().clone())


class PictureTask(Task):
    """A batch is one picture at several levels, each with noise of its own.

    start: the validation's loss before any training.
    """

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(
        self,
        objective: PictureObjective,
        network: nn.Module,
        trained: nn.Module,
        seed: int,
        batch: int,
        device: str,
    ) -> None:
        self.objective, self.network, self.count = objective, Told(network), batch
        self.trained = trained
        self.encoding = objective.conditioning.context
        self.process = Process(objective.denoiser.schedule)
        self.clean = objective.latents.data.float()
        self.modules = {objective.tunes: trained}
        self.parts = (Part("picture", tuple(self.modules)),)
        # Before training and after it, A and B: all are measured on the same levels and noise.
        generator = torch.Generator().manual_seed(seed)
        self.held = self._times(VALIDATED, generator), self._noise(VALIDATED, generator)
        self.trained.to(device)
        self.start = self.validate(generator)["loss"]

    def batch(self, step: int, rank: int) -> Tensor:
        return self.clean.expand(self.count, -1, -1, -1)

    def loss(self, batch: Tensor, part: str, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        times, noise = self._times(len(batch), generator), self._noise(len(batch), generator)
        return self._errors(times, noise.to(batch.device)), {}

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """The loss on fixed levels and noise, and what it was before training."""
        with torch.no_grad():
            loss = self._errors(*self.held).item()
        return {"loss": loss, "start": getattr(self, "start", loss)}

    def weights(self) -> Weights:
        now = {name: value.detach().cpu().clone() for name, value in self.trained.named_parameters()}
        made = self.objective
        record = {"of": made.denoiser.source.uri, "layers": list(made.layers)}
        if made.tunes == "conditioning":
            return Weights(
                now, kind="rows", target="conditioning", meta={"class": "conditioning", "tuned": record}
            )
        changes = {name: now[name] - value for name, value in self.before.items()}
        meta = {"class": "differences", "tuned": record}
        return Weights(changes, kind="difference", target="differences", meta=meta)

    def after(self, part: str) -> None:
        """Nothing follows a step."""
        return None

    def remember(self) -> None:
        """Keep what the tuned tensors were."""
        tuned = self.trained.named_parameters()
        self.before = {name: value.detach().cpu().clone() for name, value in tuned if value.requires_grad}

    def _errors(self, times: Tensor, noise: Tensor) -> Tensor:
        """The mean squared error of what the network is to say (eps, v or x0)."""
        parameter = next(self.network.parameters())
        clean = self.clean.to(parameter.device).expand(len(times), -1, -1, -1)
        noise = noise.to(parameter.device)
        alpha, sigma = self.process.at(times, clean)
        noisy = (alpha * clean + sigma * noise).to(parameter.dtype)
        context = self.trained.context if isinstance(self.trained, Encoding) else self.encoding
        assert context is not None
        told = self.objective.conditioning.replace(
            context=context.to(parameter.device, parameter.dtype).expand(len(times), -1, -1)
        )
        output = self.network(noisy, times.to(parameter.device), told).float()
        error: Tensor = (output - target_of(self.process.kind, clean, noise, alpha, sigma)).square().mean()
        return error

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] int64, one in each of `count` equal parts of the schedule."""
        within = torch.rand(count, generator=generator, device=generator.device)
        return ((torch.arange(count, device=generator.device) + within) / count * len(self.process)).long()

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn((count, *self.clean.shape[1:]), generator=generator, device=generator.device)


def open_picture(objective: PictureObjective, ctx: Context, seed: int, batch: int) -> PictureTask:
    """Stage A reads the denoiser itself, whose weights are held still; stage B tunes a copy."""
    module = ctx.realise(objective.denoiser).module
    width = getattr(module.config, "cross_attention_dim", None)
    context = objective.conditioning.context
    assert context is not None
    if not isinstance(width, int):
        raise UserError("Imagic: wanted a diffusers UNet2DConditionModel, which attends to a context")
    if width != context.shape[-1]:
        raise UserError(f"Imagic: the denoiser reads texts {width} wide, the conditioning is {context.shape[-1]}")
    if objective.tunes == "conditioning":
        return PictureTask(objective, module, Encoding(context), seed, batch, ctx.device)
    return _tuned(objective, module, seed, batch, ctx.device)


def _tuned(objective: PictureObjective, module: nn.Module, seed: int, batch: int, device: str) -> PictureTask:
    from mezzotint_models import build_network, pack_network

    # The pool's own is lent to others too.
    network = build_network(pack_network(module)).float()
    names = [name for name, _ in network.named_parameters()]
    unknown = [layer for layer in objective.layers if not any(layer in name for name in names)]
    if unknown:
        raise UserError(
            f"training.fit_denoiser: no name of the denoiser's tensors has {unknown[0]!r}, such as {names[0]} has"
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(layer in name for layer in objective.layers))
    task = PictureTask(objective, network, network, seed, batch, device)
    task.remember()
    return task
