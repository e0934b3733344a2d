"""What the trainer sees of each family: batches, losses, figures and sheets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mezzotint import Image, Weights
from mezzotint_families.adversarial import (
    Kind,
    clip_weights,
    critic_loss,
    generator_loss,
    gradient_penalty,
    real_penalty,
)
from mezzotint_families.building import pack_family
from mezzotint_families.codebook import perplexity
from mezzotint_families.dequantise import bits_per_dimension, dequantise
from mezzotint_families.gan import Critic, Generator
from mezzotint_families.randomness import normal_like
from mezzotint_families.realnvp import RealNVP
from mezzotint_families.vae import VAE, lower_bound
from mezzotint_families.vqvae import VQVAE, quantised_errors
from mezzotint_training import Part, Pictures, Task, sheet_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["AdversarialTask", "RealNVPTask", "VAETask", "VQVAETask"]

Figures = dict[str, Tensor]


class PictureTask(Task):
    """A family's network `model`, trained on pictures. Batches are uint8 [B, 3, size, size]."""

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(self, model: Any, pictures: Pictures) -> None:
        self.model, self.pictures = model, pictures

    def batch(self, step: int, rank: int) -> Tensor:
        return self.pictures.batch(step, rank)

    def weights(self) -> Weights:
        return pack_family(self.model)

    def held_out(self) -> Tensor:
        return self.pictures.held_out().to(next(self.model.parameters()).device)

    def samples(self, count: int, generator: torch.Generator) -> Tensor:
        """Pictures in 0..1."""
        first = next(self.model.parameters())
        with torch.no_grad():
            noise = normal_like(first.new_empty(count, *self.model.noise_shape), generator)
            return self.model.from_noise(noise)

    def sheet(self, generator: torch.Generator) -> Image:
        """Samples; where the family encodes, held-out pictures and their reconstructions above."""
        drawn = self.samples(24, generator)
        if not hasattr(self.model, "reconstruct"):
            return sheet_of(drawn)
        shown = self.held_out()[:8]
        with torch.no_grad():
            again = self.model.reconstruct(shown)
        blank = torch.ones(8 - len(shown), *shown.shape[1:], device=shown.device)
        return sheet_of(torch.cat((shown, blank, again, blank, drawn)))


class VAETask(PictureTask):
    """The negative lower bound, in nats per pixel value. Figures: elbo and kl in nats per picture."""

    def __init__(self, model: VAE, pictures: Pictures, beta: float) -> None:
        super().__init__(model, pictures)
        self.modules, self.parts = {"vae": model}, (Part("vae", ("vae",)),)
        self.beta = beta

    def loss(self, batch: Tensor, part: str, generator: torch.Generator) -> tuple[Tensor, Figures]:
        bound = lower_bound(self.model, batch.float() / 255, generator, self.beta)
        figures = {"elbo": bound.reconstruction - bound.divergence, "kl": bound.divergence}
        return -bound.elbo.mean() / batch[0].numel(), {n: v.detach().mean() for n, v in figures.items()}

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        pixels = self.held_out()
        bound = lower_bound(self.model, pixels, generator, self.beta)
        error = (self.model.reconstruct(pixels) - pixels).square().mean()
        return {
            "loss": -bound.elbo.mean().item() / pixels[0].numel(),
            "elbo": (bound.reconstruction - bound.divergence).mean().item(),
            "kl": bound.divergence.mean().item(),
            "mse": error.item(),
        }


class RealNVPTask(PictureTask):
    """The exact negative log-likelihood in bits per pixel value."""

    def __init__(self, model: RealNVP, pictures: Pictures) -> None:
        super().__init__(model, pictures)
        self.modules, self.parts = {"realnvp": model}, (Part("realnvp", ("realnvp",)),)

    def bits(self, levels: Tensor, generator: torch.Generator) -> Tensor:
        """[B]. levels: 0..255."""
        return bits_per_dimension(self.model.log_density(dequantise(levels, generator)), levels[0].numel())

    def loss(self, batch: Tensor, part: str, generator: torch.Generator) -> tuple[Tensor, Figures]:
        return self.bits(batch, generator).mean(), {}

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        pixels = self.held_out()
        error = (self.model.reconstruct(pixels) - pixels).abs().max()
        bits = self.bits((pixels * 255).round(), generator).mean()
        return {"loss": bits.item(), "round_trip": error.item()}


class VQVAETask(PictureTask):
    """Reconstruction and commitment for the autoencoder; for the prior the likelihood of the codes meanwhile."""

    def __init__(self, model: VQVAE, pictures: Pictures, beta: float) -> None:
        super().__init__(model, pictures)
        self.modules = {
            "encoder": model.encoder, "codebook": model.codebook, "decoder": model.decoder, "prior": model.prior,
        }  # fmt: skip
        self.parts = (Part("autoencoder", ("encoder", "codebook", "decoder")), Part("prior", ("prior",)))
        self.beta = beta
        self.seen: list[tuple[Tensor, Tensor]] = []

    def loss(self, batch: Tensor, part: str, generator: torch.Generator) -> tuple[Tensor, Figures]:
        pixels = batch.float() / 255
        if part == "prior":
            with torch.no_grad():
                indices = self.model.codebook.nearest(self.model.encode(pixels))
            return self.model.prior.loss(indices), {}
        inputs = self.model.encode(pixels)
        error, quantised = quantised_errors(self.model, pixels, inputs)
        self.seen.append((inputs.detach(), quantised.indices))
        # In units of the data's usual spread, so that the commitment has its weight of the paper.
        loss = error / 0.06 + self.beta * quantised.commitment
        if self.model.codebook.update == "gradient":
            loss = loss + quantised.codebook
        used = perplexity(quantised.indices, self.model.codebook.codes)
        return loss, {"mse": error.detach(), "perplexity": used}

    def after(self, part: str) -> None:
        if part == "autoencoder":
            inputs, indices = zip(*self.seen, strict=True)
            self.seen.clear()
            self.model.codebook.follow(torch.cat(inputs), torch.cat(indices))

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        pixels = self.held_out()
        indices = self.model.codebook.nearest(self.model.encode(pixels))
        error = (self.model.reconstruct(pixels) - pixels).square().mean().item()
        bits = self.model.prior.loss(indices).item() / math.log(2)
        used = perplexity(indices, self.model.codebook.codes).item()
        return {"loss": error, "mse": error, "bits_per_code": bits, "perplexity": used}


class AdversarialTask(PictureTask):
    """Critic and generator in turn. Figures: the critic's estimate of the divergence or distance it stands for.

    clip: bound of the critic's weights; 0 is none.
    penalty: weight of the penalty on the critic's slope, between real and generated pictures under "wasserstein",
    at the real ones under the others; 0 is none.
    """

    def __init__(
        self, model: Generator, critic: Critic, pictures: Pictures, *,
        kind: Kind, critic_steps: int, clip: float = 0.0, penalty: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(model, pictures)
        self.critic, self.kind, self.clip, self.penalty = critic, kind, clip, penalty
        self.modules = {"critic": critic, "generator": model}
        self.parts = (Part("critic", ("critic",), repeats=critic_steps), Part("generator", ("generator",)))

    def loss(self, batch: Tensor, part: str, generator: torch.Generator) -> tuple[Tensor, Figures]:
        real = batch.float() / 255
        noise = normal_like(real.new_empty(len(real), *self.model.noise_shape), generator)
        if part == "generator":
            return generator_loss(self.kind, self.critic(self.model(noise))), {}
        with torch.no_grad():
            fake = self.model(noise)
        loss = critic_loss(self.kind, self.critic(real), self.critic(fake))
        figures = self.estimate(loss.detach())
        if self.penalty:
            if self.kind == "wasserstein":
                penalty = gradient_penalty(self.critic, real, fake, generator)
            else:
                penalty = real_penalty(self.critic, real)
            loss = loss + self.penalty * penalty
            figures["penalty"] = penalty.detach()
        return loss, figures

    def estimate(self, loss: Tensor) -> Figures:
        """What the critic's loss measures."""
        if self.kind == "wasserstein":
            return {"distance": -loss}
        return {} if self.kind == "hinge" else {"divergence": math.log(2) - loss / 2}

    def after(self, part: str) -> None:
        if part == "critic" and self.clip:
            clip_weights(self.critic.parameters(), self.clip)

    @torch.no_grad()
    def validate(self, generator: torch.Generator) -> dict[str, float]:
        real = self.held_out()
        fake = self.samples(len(real), generator)
        found = self.estimate(critic_loss(self.kind, self.critic(real), self.critic(fake)))
        spread = (fake.std(0).mean() / real.std(0).mean()).item()
        return {**{name: value.item() for name, value in found.items()}, "spread": spread}
