"""Two-player losses on a critic's raw outputs (logits), and what keeps a Wasserstein critic flat.

Goodfellow et al. 2014 (saturating, non-saturating); Lim and Ye 2017 (hinge); Arjovsky et al. 2017 (clipping);
Gulrajani et al. 2017 (gradient penalty); Mescheder et al. 2018 (penalty at the data).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from mezzotint_families.randomness import uniform_like

__all__ = ["Kind", "clip_weights", "critic_loss", "generator_loss", "gradient_penalty", "real_penalty"]

Kind = Literal["non_saturating", "saturating", "hinge", "wasserstein"]


def critic_loss(kind: Kind, real: Tensor, fake: Tensor) -> Tensor:
    """What the critic minimises, from its outputs for real and for generated pictures, of any shape.

    With the first two kinds a critic that knows nothing has 2 log 2, and log 2 - loss / 2 is at most the
    Jensen-Shannon divergence. Under "wasserstein" minus the loss is the estimate of the distance.
    """
    if kind == "wasserstein":
        return fake.mean() - real.mean()
    if kind == "hinge":
        return 0.5 * (relu(1 - real).mean() + relu(1 + fake).mean())
    return softplus(-real).mean() + softplus(fake).mean()


def generator_loss(kind: Kind, fake: Tensor) -> Tensor:
    """What the generator minimises, from the critic's outputs for its pictures."""
    if kind == "saturating":
        return -softplus(fake).mean()  # log(1 - D)
    if kind == "non_saturating":
        return softplus(-fake).mean()  # -log D
    return -fake.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Mean of (|slope| - 1)^2 on the lines between real and generated samples, one random place for each.

    real, fake: [B, ...]. The gradient of the result reaches the critic's weights (second order).
    """
    place = uniform_like(real.flatten(1)[:, 0], generator).view(-1, *[1] * (real.dim() - 1))
    between = (place * real.detach() + (1 - place) * fake.detach()).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def real_penalty(critic: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Half the mean squared slope at the data, which goes to 0 where the two players agree.

    real: [B, ...]. The gradient of the result reaches the critic's weights. Mescheder et al. 2018, eq. 9.
    """
    at = real.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
    return 0.5 * slope.flatten(1).square().sum(1).mean()


@torch.no_grad()
def clip_weights(parameters: Iterable[nn.Parameter], bound: float) -> None:
    """Clamp every weight to -bound..bound, in place."""
    for parameter in parameters:
        parameter.clamp_(-bound, bound)
