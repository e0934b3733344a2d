"""Variational autoencoder: posterior, likelihoods, and the lower bound that trains both.

Sizes are sums over pixels and dimensions, in nats per picture: a mean over the pixels beside a summed divergence
would be a very large weight of the latter. Kingma and Welling 2014; Higgins et al. 2017 for `beta`.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mezzotint_families.layers import decoder, encoder
from mezzotint_families.randomness import normal_like

__all__ = ["VAE", "Bound", "Likelihood", "divergence", "log_likelihood", "lower_bound", "sample_posterior"]

Likelihood = Literal["bernoulli", "gaussian"]
LOG_VARIANCE = (-30.0, 20.0)


class Bound(NamedTuple):
    """elbo = reconstruction - beta * divergence, each [B], in nats."""

    elbo: Tensor
    reconstruction: Tensor
    divergence: Tensor


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, I)) in nats for each dimension, the shape of `mean`."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def sample_posterior(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """mean + deviation * noise, through which gradients reach both (the reparameterisation)."""
    return mean + (0.5 * log_variance).exp() * normal_like(mean, generator)


def log_likelihood(pixels: Tensor, decoded: Tensor, likelihood: Likelihood, log_deviation: Tensor) -> Tensor:
    """log p(pixels | code) in nats, [B]. pixels, decoded: [B, ...].

    bernoulli: `decoded` are logits and pixels lie in 0..1 (between 0 and 1 this is a score, not a density).
    gaussian: `decoded` are means, with one standard deviation for all pixels.
    """
    if likelihood == "bernoulli":
        return -binary_cross_entropy_with_logits(decoded, pixels, reduction="none").flatten(1).sum(1)
    square = ((pixels - decoded) * (-log_deviation).exp()).square()
    return (-0.5 * square - log_deviation - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


class VAE(nn.Module):
    """Pictures [B, 3, S, S] in 0..1 to a code [B, codes], and back.

    size: S, a multiple of 8. deviation: of the pixels under "gaussian"; None learns it.
    """

    log_deviation: Tensor

    def __init__(
        self,
        *,
        size: int = 32,
        channels: int = 32,
        codes: int = 32,
        likelihood: Likelihood = "gaussian",
        deviation: float | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "size": size, "channels": channels, "codes": codes, "likelihood": likelihood, "deviation": deviation,
        }  # fmt: skip
        self.likelihood = likelihood
        self.noise_shape = (codes,)
        self.encoder = encoder(size, channels, 2 * codes)
        self.decoder = decoder(size, channels, codes)
        log_deviation = torch.tensor(math.log(0.3 if deviation is None else deviation))
        if deviation is None and likelihood == "gaussian":
            self.log_deviation = nn.Parameter(log_deviation)
        else:
            self.register_buffer("log_deviation", log_deviation)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, each [B, codes]."""
        mean, log_variance = self.encoder(pixels * 2 - 1).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def decode(self, code: Tensor) -> Tensor:
        """The likelihood's parameters: logits or means, [B, 3, S, S]."""
        return self.decoder(code)

    def pixels(self, code: Tensor) -> Tensor:
        """The expected picture in 0..1."""
        decoded = self.decode(code)
        return decoded.sigmoid() if self.likelihood == "bernoulli" else decoded.clamp(0, 1)

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Through the posterior's mean and back, in 0..1: the same every time."""
        return self.pixels(self.encode(pixels)[0])

    def from_noise(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Pictures in 0..1 of normal noise [B, *noise_shape]: of codes from the prior."""
        return self.pixels(temperature * noise)


def lower_bound(model: VAE, pixels: Tensor, generator: torch.Generator | None = None, beta: float = 1.0) -> Bound:
    """The evidence lower bound of each picture, from one sample of its code."""
    mean, log_variance = model.encode(pixels)
    decoded = model.decode(sample_posterior(mean, log_variance, generator))
    reconstruction = log_likelihood(pixels, decoded, model.likelihood, model.log_deviation)
    spent = divergence(mean, log_variance).sum(1)
    return Bound(reconstruction - beta * spent, reconstruction, spent)
