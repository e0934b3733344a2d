"""VQ-VAE: pictures as a grid of codes, and a small autoregressive prior over such grids.

van den Oord et al. 2017; the prior is a PixelCNN of masked convolutions (van den Oord et al. 2016).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from mezzotint import UserError
from mezzotint_families.codebook import Codebook, Quantised, Update
from mezzotint_families.layers import doubled

__all__ = ["VQVAE", "CodePrior", "Errors", "quantised_errors"]


class Errors(NamedTuple):
    """reconstruction: mean squared error in 0..1 units. quantised: codes and the two distances."""

    reconstruction: Tensor
    quantised: Quantised


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1),
            nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Masked(nn.Conv2d):
    """A convolution that sees places before its own in reading order; with `own`, its own as well."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, side: int, *, own: bool) -> None:
        super().__init__(inputs, outputs, side, padding=side // 2)
        seen = torch.arange(side * side).view(side, side) < side * side // 2 + own
        self.register_buffer("mask", seen.float())

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class CodePrior(nn.Module):
    """p(code | codes before it, in reading order). indices: [B, H, W] int64."""

    def __init__(self, codes: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.codes = codes
        self.embed = nn.Embedding(codes, hidden)
        self.first = Masked(hidden, hidden, 7, own=False)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.SiLU(), Masked(hidden, hidden, 5, own=True), nn.SiLU(), nn.Conv2d(hidden, hidden, 1))
            for _ in range(layers)
        )
        self.last = nn.Conv2d(hidden, codes, 1)

    def forward(self, indices: Tensor) -> Tensor:
        """Logits [B, codes, H, W]."""
        x = self.first(self.embed(indices).movedim(-1, 1))
        for layer in self.layers:
            x = x + layer(x)
        return self.last(x)

    def loss(self, indices: Tensor) -> Tensor:
        """Mean negative log-likelihood of a code, in nats."""
        return cross_entropy(self(indices), indices)

    @torch.no_grad()
    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Grids of codes [B, H, W], place by place; temperature 0 takes the likeliest.

        noise: normal numbers [B, H, W]; each one picks its code by its place in the normal distribution.
        """
        places = torch.special.ndtr(noise.double())
        indices = torch.zeros(noise.shape, dtype=torch.int64, device=noise.device)
        for row in range(noise.shape[1]):
            for column in range(noise.shape[2]):
                logits = self(indices)[:, :, row, column].double()
                if temperature == 0:
                    indices[:, row, column] = logits.argmax(1)
                else:
                    below = (logits / temperature).softmax(1).cumsum(1) < places[:, row, column, None]
                    indices[:, row, column] = below.sum(1).clamp(max=self.codes - 1)
        return indices


class VQVAE(nn.Module):
    """Pictures [B, 3, S, S] in 0..1 to codes [B, S/4, S/4], and back, with a prior over the codes.

    size: S, a multiple of 4. codes: vectors in the codebook. width: numbers of each.
    """

    def __init__(
        self,
        *,
        size: int = 32,
        channels: int = 48,
        codes: int = 128,
        width: int = 16,
        update: Update = "average",
        decay: float = 0.99,
        prior_channels: int = 64,
        prior_layers: int = 4,
    ) -> None:
        super().__init__()
        if size % 4 or size < 8:
            raise UserError(f"vqvae: wanted a side that is a multiple of 4 and at least 8, got {size}")
        self.config = {
            "size": size, "channels": channels, "codes": codes, "width": width, "update": update, "decay": decay,
            "prior_channels": prior_channels, "prior_layers": prior_layers,
        }  # fmt: skip
        self.noise_shape = (size // 4, size // 4)
        self.passes = (size // 4) ** 2 + 1  # one of the prior for each code, and the decoder's
        self.encoder = nn.Sequential(
            nn.Conv2d(3, channels, 4, 2, 1), nn.SiLU(), nn.Conv2d(channels, channels, 4, 2, 1),
            Residual(channels), Residual(channels), nn.GroupNorm(4, channels), nn.Conv2d(channels, width, 1),
        )  # fmt: skip
        self.codebook = Codebook(codes, width, update=update, decay=decay)
        self.decoder = nn.Sequential(
            nn.Conv2d(width, channels, 3, 1, 1), Residual(channels), Residual(channels), nn.SiLU(),
            *doubled(channels, channels), nn.SiLU(), *doubled(channels, channels // 2), nn.SiLU(),
            nn.Conv2d(channels // 2, 3, 3, 1, 1),
        )  # fmt: skip
        self.prior = CodePrior(codes, prior_channels, prior_layers)

    def encode(self, pixels: Tensor) -> Tensor:
        """What is quantised, [B, width, S/4, S/4]."""
        return self.encoder(pixels * 2 - 1)

    def decode(self, vectors: Tensor) -> Tensor:
        """Vectors of the codebook to pictures, about 0..1."""
        return self.decoder(vectors) / 2 + 0.5

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Through the codes and back, in 0..1."""
        return self.decode(self.codebook.look_up(self.codebook.nearest(self.encode(pixels)))).clamp(0, 1)

    def from_noise(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Pictures in 0..1 of grids of codes that the prior makes of normal noise [B, *noise_shape]."""
        return self.decode(self.codebook.look_up(self.prior.sample(noise, temperature))).clamp(0, 1)


def quantised_errors(model: VQVAE, pixels: Tensor, inputs: Tensor) -> Errors:
    """Reconstruction through the codes, with gradients straight through to the encoder. inputs: its `encode`."""
    quantised = model.codebook(inputs)
    return Errors(mse_loss(model.decode(quantised.vectors), pixels), quantised)
