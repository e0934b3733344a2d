"""The autoencoder of PVDM: a clip as three planes, and back.

Yu et al. 2023, section 3.1. Two things are smaller than there: the blocks mix space by a convolution and time by
attention, where the paper's TimeSformer attends to both; and the transformer that pools an axis has one layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint_kernels import attention
from mezzotint_video.triplane import AxisPool, Planes, broadcast_sum

__all__ = ["SpaceTimeBlock", "TriplaneAutoencoder"]


class SpaceTimeBlock(nn.Module):
    """Residual: a convolution within each frame, then attention of each place to itself at other times."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.space_norm, self.time_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.space = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Linear(width, width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """features: [B, F, H, W, width]."""
        frames = self.space_norm(features).flatten(0, 1).permute(0, 3, 1, 2)
        seen = self.space(frames).permute(0, 2, 3, 1)
        features = features + self.mix(nn.functional.silu(seen)).view_as(features)
        tokens = self.time_norm(features).permute(0, 2, 3, 1, 4).flatten(0, 2)
        parts = self.query_key_value(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.out(attention(*parts.unbind(0)).transpose(1, 2).flatten(2))
        size = features.permute(0, 2, 3, 1, 4).shape
        return features + mixed.view(size).permute(0, 3, 1, 2, 4)


class TriplaneAutoencoder(nn.Module):
    """Clips [B, 3, F, S, S] in -1..1 to three planes of `channels` numbers in -1..1, and back.

    frames: F. size: S. patch: side of the squares of pixels that make one place. width: of the features.
    encoder_blocks, decoder_blocks: space-time blocks. heads: of every attention.
    """

    def __init__(
        self, *, frames: int = 8, size: int = 32, patch: int = 4, channels: int = 8, width: int = 64,
        encoder_blocks: int = 2, decoder_blocks: int = 3, heads: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        if size % patch or width % heads:
            raise ValueError(f"size {size} divides by the patch {patch}, and width {width} by the heads {heads}")
        self.config: Mapping[str, Any] = {
            "frames": frames, "size": size, "patch": patch, "channels": channels, "width": width,
            "encoder_blocks": encoder_blocks, "decoder_blocks": decoder_blocks, "heads": heads,
        }  # fmt: skip
        self.side = side = size // patch
        self.entrance = nn.Linear(3 * patch**2, width)
        self.places = nn.Parameter(torch.randn(side, side, width) * 0.02)
        self.times = nn.Parameter(torch.randn(frames, width) * 0.02)
        self.encoder = nn.Sequential(*(SpaceTimeBlock(width, heads) for _ in range(encoder_blocks)))
        self.pools = nn.ModuleList(AxisPool(width, heads) for _ in Planes._fields)
        self.to_planes = nn.ModuleList(nn.Linear(width, channels) for _ in Planes._fields)
        self.from_planes = nn.ModuleList(nn.Linear(channels, width) for _ in Planes._fields)
        self.decoder = nn.Sequential(*(SpaceTimeBlock(width, heads) for _ in range(decoder_blocks)))
        self.exit_norm = nn.LayerNorm(width)
        self.exit = nn.Linear(width, 3 * patch**2)

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers per channel of the planes, and of the block of features that they stand for."""
        frames, side = int(self.config["frames"]), self.side
        return side**2 + 2 * frames * side, frames * side**2

    def encode(self, clips: Tensor) -> Planes:
        """The planes, through tanh. clips: [B, 3, F, S, S] in -1..1."""
        patch, side = self.config["patch"], self.side
        cut = clips.unflatten(-1, (side, patch)).unflatten(-3, (side, patch))  # [B, 3, F, side, p, side, p]
        cut = cut.permute(0, 2, 3, 5, 1, 4, 6).flatten(-3)
        features = self.encoder(self.entrance(cut) + self.places + self.times[:, None, None])
        # The pooled axis comes next to last: t of [y, x], x of [t, y], y of [t, x].
        lined = (features.permute(0, 2, 3, 1, 4), features, features.transpose(2, 3))
        made = [
            torch.tanh(exit(pool(line))).movedim(-1, 1)
            for line, pool, exit in zip(lined, self.pools, self.to_planes, strict=True)
        ]
        return Planes(*made)

    def summed(self, planes: Planes) -> Tensor:
        """[B, F, side, side, width]: what the decoder sees, a sum of three functions of two variables each."""
        made = [
            enter(plane.movedim(1, -1)).movedim(-1, 1)
            for plane, enter in zip(planes, self.from_planes, strict=True)
        ]
        return broadcast_sum(Planes(*made))

    def decode(self, planes: Planes) -> Tensor:
        """[B, 3, F, S, S], about -1..1."""
        patch = self.config["patch"]
        features = self.decoder(self.summed(planes) + self.places + self.times[:, None, None])
        cut = self.exit(self.exit_norm(features)).unflatten(-1, (3, patch, patch))
        joined: Tensor = cut.permute(0, 4, 1, 2, 5, 3, 6).flatten(-2).flatten(-3, -2)
        return joined
