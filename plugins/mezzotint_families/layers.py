"""The small convolutional halves that the families share: pictures to features, and codes to pictures.

Groups of channels are normalised within a picture. Batch statistics would tie the pictures of a batch together (a
critic's penalty is per picture) and differ between training and sampling.
"""

from __future__ import annotations

from torch import nn

from mezzotint import UserError

__all__ = ["SMALLEST", "critic", "decoder", "doubled", "encoder", "stages"]

SMALLEST = 4  # side of the smallest feature map


def stages(size: int) -> int:
    """How often a side of `size` is halved to reach 4. Raises: UserError: it is no 8, 16, 32 or 64."""
    if size not in (8, 16, 32, 64):
        raise UserError(f"size: wanted a side of 8, 16, 32 or 64 pixels, got {size}")
    return (size // SMALLEST).bit_length() - 1


def encoder(size: int, channels: int, out: int) -> nn.Sequential:
    """[B, 3, size, size] to [B, out]; the channels double at each halving."""
    layers: list[nn.Module] = []
    before = 3
    for stage in range(stages(size)):
        width = channels << stage
        layers += [nn.Conv2d(before, width, 4, 2, 1), nn.GroupNorm(4, width), nn.SiLU()]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * SMALLEST**2, out))


def decoder(size: int, channels: int, codes: int) -> nn.Sequential:
    """[B, codes] to [B, 3, size, size]: the channels halve at each doubling; ends in plain numbers."""
    widths = [channels << stage for stage in reversed(range(stages(size)))]
    layers: list[nn.Module] = [
        nn.Linear(codes, widths[0] * SMALLEST**2), nn.Unflatten(1, (widths[0], SMALLEST, SMALLEST)),
    ]  # fmt: skip
    for width in widths:
        layers += [nn.GroupNorm(4, width), nn.SiLU(), *doubled(width, width // 2)]
    return nn.Sequential(*layers, nn.GroupNorm(2, channels // 2), nn.SiLU(), nn.Conv2d(channels // 2, 3, 3, 1, 1))


def doubled(width: int, after: int) -> tuple[nn.Module, nn.Module]:
    """Twice the side: pixels repeated, then a convolution.

    A transposed convolution reaches some pixels by other weights than their neighbours, and paints a checkerboard.
    Odena et al. 2016.
    """
    return nn.Upsample(scale_factor=2), nn.Conv2d(width, after, 3, 1, 1)


def critic(size: int, channels: int) -> nn.Sequential:
    """[B, 3, size, size] to one number per picture, [B, 1]. No normalisation: the penalty is on its slope."""
    layers: list[nn.Module] = []
    before = 3
    for stage in range(stages(size)):
        width = channels << stage
        layers += [nn.Conv2d(before, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * SMALLEST**2, 1))
