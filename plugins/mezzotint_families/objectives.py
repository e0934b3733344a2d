"""The objectives of the families as values: settings of networks and losses, opened when training begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mezzotint_training import Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_families.tasks import AdversarialTask, RealNVPTask, VAETask, VQVAETask

__all__ = ["AdversarialObjective", "RealNVPObjective", "VAEObjective", "VQVAEObjective"]


@dataclass(frozen=True, eq=False)
class VAEObjective(Objective):
    """A variational autoencoder; fields as in `families.vae`."""

    size: int = 32
    channels: int = 32
    codes: int = 32
    likelihood: Literal["bernoulli", "gaussian"] = "gaussian"
    deviation: float | None = None
    beta: float = 1.0

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> VAETask:
        from mezzotint_families.tasks import VAETask
        from mezzotint_families.vae import VAE
        from mezzotint_training import Pictures

        model = VAE(
            size=self.size, channels=self.channels, codes=self.codes,
            likelihood=self.likelihood, deviation=self.deviation,
        )  # fmt: skip
        return VAETask(model, Pictures(reader, self.size, batch, seed), self.beta)


@dataclass(frozen=True, eq=False)
class RealNVPObjective(Objective):
    """A flow; fields as in `families.realnvp`."""

    size: int = 16
    hidden: int = 32
    blocks: int = 1
    scales: int = 2

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> RealNVPTask:
        from mezzotint_families.realnvp import RealNVP
        from mezzotint_families.tasks import RealNVPTask
        from mezzotint_training import Pictures

        model = RealNVP(size=self.size, hidden=self.hidden, blocks=self.blocks, scales=self.scales)
        return RealNVPTask(model, Pictures(reader, self.size, batch, seed))


@dataclass(frozen=True, eq=False)
class VQVAEObjective(Objective):
    """A vector-quantised autoencoder with its prior; fields as in `families.vqvae`."""

    size: int = 32
    channels: int = 48
    codes: int = 128
    width: int = 16
    update: Literal["average", "gradient"] = "average"
    decay: float = 0.99
    beta: float = 0.25
    prior_channels: int = 64
    prior_layers: int = 4

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> VQVAETask:
        from mezzotint_families.tasks import VQVAETask
        from mezzotint_families.vqvae import VQVAE
        from mezzotint_training import Pictures

        model = VQVAE(
            size=self.size, channels=self.channels, codes=self.codes, width=self.width, update=self.update,
            decay=self.decay, prior_channels=self.prior_channels, prior_layers=self.prior_layers,
        )  # fmt: skip
        return VQVAETask(model, Pictures(reader, self.size, batch, seed), self.beta)


@dataclass(frozen=True, eq=False)
class AdversarialObjective(Objective):
    """A generator and its critic; fields as in `families.gan` and `families.wgan`."""

    kind: Literal["non_saturating", "saturating", "hinge", "wasserstein"] = "non_saturating"
    size: int = 32
    channels: int = 32
    noise: int = 64
    critic_steps: int = 1
    clip: float = 0.0
    penalty: float = 0.0

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> AdversarialTask:
        from mezzotint_families.gan import Critic, Generator
        from mezzotint_families.tasks import AdversarialTask
        from mezzotint_training import Pictures

        return AdversarialTask(
            Generator(size=self.size, channels=self.channels, noise=self.noise),
            Critic(size=self.size, channels=self.channels),
            Pictures(reader, self.size, batch, seed),
            kind=self.kind, critic_steps=self.critic_steps, clip=self.clip, penalty=self.penalty,
        )  # fmt: skip
