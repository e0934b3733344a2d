"""The critic of a first stage: PatchGAN with the hinge loss, weighted by how the last layer's gradients compare.

Isola et al. 2017 (patches); Lim and Ye 2017 (hinge); Esser et al. 2021, eq. 7 (the adaptive weight), as in
Rombach et al. 2022, appendix G.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

__all__ = ["PatchCritic", "adaptive_weight", "hinge"]


class PatchCritic(nn.Module):
    """Pictures [B, 3, H, W] in -1..1 to one logit per overlapping patch, [B, 1, h, w].

    channels: of the first of `layers` halvings; each doubles them. Normalised in groups, since the batches of a
    CPU are too small for the paper's batch statistics.
    """

    def __init__(self, channels: int = 32, layers: int = 3) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = channels
        for layer in range(1, layers + 1):
            # The last of them keeps the size, as published.
            stride = 2 if layer < layers else 1
            blocks += [
                nn.Conv2d(width, 2 * width, 4, stride, 1, bias=False),
                nn.GroupNorm(min(8, channels), 2 * width),
                nn.LeakyReLU(0.2),
            ]
            width *= 2
        self.layers = nn.Sequential(*blocks, nn.Conv2d(width, 1, 4, 1, 1))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """What the critic minimises: 1 where it knows nothing, 0 where both kinds are beyond their margins."""
    return 0.5 * (relu(1 - real).mean() + relu(1 + fake).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor, most: float = 1e4) -> Tensor:
    """|d reconstruction / d last| / |d adversarial / d last|, so that neither loss drowns the other. Detached.

    reconstruction, adversarial: scalars with a graph, which is kept. last: the decoder's last weight.
    """
    (of_pictures,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (of_critic,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (of_pictures.norm() / (of_critic.norm() + 1e-4)).clamp(0, most).detach()
