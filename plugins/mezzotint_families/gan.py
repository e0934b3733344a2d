"""The two players of a GAN: a generator from normal noise, and a critic.

After Radford et al. 2016, without batch statistics.
"""

from __future__ import annotations

from torch import Tensor, nn

from mezzotint_families.layers import critic, decoder

__all__ = ["Critic", "Generator"]


class Generator(nn.Module):
    """Noise [B, noise] to pictures [B, 3, size, size] in 0..1."""

    def __init__(self, *, size: int = 32, channels: int = 32, noise: int = 64) -> None:
        super().__init__()
        self.config = {"size": size, "channels": channels, "noise": noise}
        self.noise_shape = (noise,)
        self.network = decoder(size, channels, noise)

    def forward(self, noise: Tensor) -> Tensor:
        return self.network(noise).sigmoid()

    def from_noise(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Pictures in 0..1 of normal noise [B, *noise_shape]."""
        return self(temperature * noise)


class Critic(nn.Module):
    """Pictures [B, 3, size, size] in 0..1 to one number each, [B]."""

    def __init__(self, *, size: int = 32, channels: int = 32) -> None:
        super().__init__()
        self.config = {"size": size, "channels": channels}
        self.network = critic(size, channels)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels * 2 - 1)[:, 0]
