"""The variance that a network says along with its prediction, and the bound that teaches it.

Nichol and Dhariwal 2021, "Improved denoising diffusion probabilistic models", section 3.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mezzotint_training.noising import Process

__all__ = ["VarianceBound", "normal_kl"]


def normal_kl(mean: Tensor, log_variance: Tensor, other: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL(N(mean, .) || N(other, .)) of each element, in nats."""
    spread = other_log_variance - log_variance
    return 0.5 * (spread + torch.exp(-spread) + (mean - other).square() * torch.exp(-other_log_variance) - 1)


class VarianceBound:
    """One term L_t of the variational bound per sample, in bits per number, with the mean held fixed.

    pixels: whether x0 are pictures in -1..1 with 256 levels, whose likelihood at the last step is that of the
    level (Ho et al. 2020, eq. 13); other x0 have a density.
    """

    def __init__(self, process: Process, pixels: bool) -> None:
        self.process, self.pixels = process, pixels
        after = process.products
        before = torch.cat([after.new_ones(1), after[:-1]])
        beta = 1 - after / before
        smallest = beta * (1 - before) / (1 - after)
        # At the first level the posterior has no spread: the paper takes the next level's.
        smallest = torch.cat([smallest[1:2], smallest[1:]])
        self.log_small, self.log_large = smallest.log(), beta.log()
        self.of_clean = beta * before.sqrt() / (1 - after)
        self.of_noisy = (1 - before) * (1 - beta).sqrt() / (1 - after)

    def __call__(self, clean: Tensor, noisy: Tensor, predicted: Tensor, said: Tensor, times: Tensor) -> Tensor:
        """[B]. predicted: x0 by the network, not differentiated here. said: its variance, -1 smallest, 1 largest.

        times: [B] int64.
        """
        small, large, of_clean, of_noisy = (
            table[times.cpu()].to(noisy.device, noisy.dtype).view(-1, *[1] * (noisy.ndim - 1))
            for table in (self.log_small, self.log_large, self.of_clean, self.of_noisy)
        )
        share = (said + 1) / 2
        log_variance = share * large + (1 - share) * small  # eq. 15
        mean = of_clean * predicted.detach() + of_noisy * noisy
        divergence = normal_kl(of_clean * clean + of_noisy * noisy, small, mean, log_variance)
        first = times.to(noisy.device).view(-1, *[1] * (noisy.ndim - 1)) == 0
        if bool(first.any()):
            divergence = torch.where(first, self._surprise(clean, mean, log_variance), divergence)
        return divergence.flatten(1).mean(1) / math.log(2)

    def _surprise(self, clean: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        if self.pixels:
            return -level_likelihood(clean, mean, log_variance)
        distance = (clean - mean).square() * torch.exp(-log_variance)
        return 0.5 * (distance + log_variance + math.log(2 * math.pi))


def level_likelihood(clean: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability, in nats, that a normal number falls to the level of `clean`, one of 256 over -1..1.

    The outermost levels take the tails (Ho et al. 2020, eq. 13).
    """
    scale = torch.exp(-0.5 * log_variance)
    upper = torch.special.ndtr((clean - mean + 1 / 255) * scale)
    lower = torch.special.ndtr((clean - mean - 1 / 255) * scale)
    upper = torch.where(clean > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(clean < -0.999, torch.zeros_like(lower), lower)
    return (upper - lower).clamp(min=1e-12).log()
