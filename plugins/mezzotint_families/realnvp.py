"""RealNVP: an invertible network of affine couplings over several scales, with its exact density.

y = x exp(s) + t on the part that a mask lets change, s and t computed from the rest, so that the inverse and the
log-determinant (the sum of s) are exact. Dinh et al. 2017.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from mezzotint import UserError
from mezzotint_families.dequantise import from_logit, to_logit

__all__ = ["Coupling", "RealNVP", "Scale", "normal_log_density"]

Pattern = Literal["checkerboard", "channels"]


def normal_log_density(z: Tensor) -> Tensor:
    """log N(z; 0, I) of each sample, [B], in nats."""
    return (-0.5 * (z.square() + math.log(2 * math.pi))).flatten(1).sum(1)


class Residual(nn.Module):
    """A 3x3 and a 1x1 convolution beside the identity."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(hidden, hidden, 3, 1, 1), nn.ReLU(), nn.Conv2d(hidden, hidden, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Coupling(nn.Module):
    """One affine coupling of maps [B, C, H, W], the identity at the start.

    pattern: what is kept: every second pixel, or the first half of the channels. flipped: the other half.
    The log-scale is bounded by a learnt factor around a tanh, without which it can explode.
    """

    mask: Tensor

    def __init__(
        self, channels: int, size: int, hidden: int, blocks: int, pattern: Pattern, flipped: bool
    ) -> None:
        super().__init__()
        if pattern == "checkerboard":
            kept = (torch.arange(size)[:, None] + torch.arange(size)[None]) % 2
            kept = kept.expand(1, 1, size, size)
        else:
            kept = (torch.arange(channels) >= channels // 2).long().view(1, channels, 1, 1)
        self.register_buffer("mask", (kept != flipped).float())
        last = nn.Conv2d(hidden, 2 * channels, 3, 1, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.network = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, 1, 1), *(Residual(hidden) for _ in range(blocks)), nn.ReLU(), last
        )
        self.bound = nn.Parameter(torch.ones(channels, 1, 1))

    def parts(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """s and t, zero where the mask keeps."""
        s, t = self.network(kept).chunk(2, dim=1)
        changed = 1 - self.mask
        return changed * self.bound * s.tanh(), changed * t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y and the log-determinant [B]."""
        s, t = self.parts(self.mask * x)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """The x that `forward` took: where the mask keeps, y is x."""
        s, t = self.parts(self.mask * y)
        return (y - t) * (-s).exp()


class Scale(nn.Module):
    """Couplings at one scale, then half of the values leave and the rest goes on at half the side.

    Three of a checkerboard at the full side, 2x2 pixels squeezed into channels, three of channels, whose networks
    are twice as wide. The last scale has four of a checkerboard and nothing leaves.
    """

    def __init__(self, channels: int, size: int, hidden: int, blocks: int, scales: int) -> None:
        super().__init__()
        last = scales == 1
        self.before = nn.ModuleList(
            Coupling(channels, size, hidden, blocks, "checkerboard", bool(i % 2)) for i in range(4 if last else 3)
        )
        self.rest: Scale | None = None
        if not last:
            self.after = nn.ModuleList(
                Coupling(4 * channels, size // 2, 2 * hidden, blocks, "channels", bool(i % 2)) for i in range(3)
            )
            self.rest = Scale(2 * channels, size // 2, 2 * hidden, blocks, scales - 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z of the shape of x, and the log-determinant [B]."""
        total = x.new_zeros(len(x))
        for coupling in self.before:
            x, change = coupling(x)
            total = total + change
        if self.rest is None:
            return x, total
        x = pixel_unshuffle(x, 2)
        for coupling in self.after:
            x, change = coupling(x)
            total = total + change
        out, on = mixed(x).chunk(2, dim=1)
        on, change = self.rest(on)
        return pixel_shuffle(unmixed(torch.cat((out, on), dim=1)), 2), total + change

    def inverse(self, z: Tensor) -> Tensor:
        """The x that `forward` took."""
        x = z
        if self.rest is not None:
            out, on = mixed(pixel_unshuffle(x, 2)).chunk(2, dim=1)
            x = unmixed(torch.cat((out, self.rest.inverse(on)), dim=1))
            for coupling in reversed(self.after):
                x = coupling.inverse(x)  # type: ignore[operator]
            x = pixel_shuffle(x, 2)
        for coupling in reversed(self.before):
            x = coupling.inverse(x)  # type: ignore[operator]
        return x


def mixed(x: Tensor) -> Tensor:
    """Squeezed channels in another order, so that each half has two of the four pixels, of every colour.

    [B, 4C, H, W], pixels innermost, to the diagonal pair of pixels first and the other pair after it.
    """
    count, channels, height, width = x.shape
    return x.view(count, channels // 4, 4, height, width)[:, :, [0, 3, 1, 2]].transpose(1, 2).reshape(x.shape)


def unmixed(x: Tensor) -> Tensor:
    """The inverse of `mixed`."""
    count, channels, height, width = x.shape
    return x.view(count, 4, channels // 4, height, width)[:, [0, 2, 3, 1]].transpose(1, 2).reshape(x.shape)


class RealNVP(nn.Module):
    """Pictures of 8-bit levels to normal noise of the same shape [B, channels, size, size], and back.

    Raises: UserError: a side that the scales cannot halve.
    """

    def __init__(
        self, *, size: int = 16, channels: int = 3, hidden: int = 32, blocks: int = 1, scales: int = 2
    ) -> None:
        super().__init__()
        if not 1 <= scales <= 16 or size % 2 ** (scales - 1):
            halved = f"{scales} scales halve the side {scales - 1} times"
            raise UserError(f"realnvp: {halved}; {size} does not allow that")
        self.config = {
            "size": size, "channels": channels, "hidden": hidden, "blocks": blocks, "scales": scales,
        }  # fmt: skip
        self.noise_shape = (channels, size, size)
        self.flow = Scale(channels, size, hidden, blocks, scales)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x in 0..1 to z, with the log-determinant of the logit and of every coupling, [B]."""
        y, before = to_logit(x)
        z, after = self.flow(y)
        return z, before + after

    def inverse(self, z: Tensor) -> Tensor:
        """z to x, which lies a little outside 0..1 where the logit left its range."""
        return from_logit(self.flow.inverse(z))

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) in nats of x in 0..1, [B]."""
        z, change = self(x)
        return normal_log_density(z) + change

    def from_noise(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Pictures in 0..1 of normal noise [B, *noise_shape]."""
        return self.inverse(temperature * noise).clamp(0, 1)

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """To noise and back: the picture itself, up to rounding."""
        middle = (pixels * 255).round().add(0.5).div(256)
        return self.inverse(self(middle)[0]).clamp(0, 1)
