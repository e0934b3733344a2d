"""A small network that reads what happens in a clip, and in its last hidden layer says so in a few numbers.

Residual blocks of pseudo-3D convolutions (over places, then over time: Tran et al. 2018, "R(2+1)D"), then a vector
for each frame, which says what is there and where, and all frames' vectors together. It mixes time: the same
frames in another order are another clip to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, layer_norm, pixel_unshuffle, silu

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ClipClassifier", "Read"]


class Read(NamedTuple):
    """features: [B, hidden], of mean 0 and variance 1 in each row. logits: for each head [B, classes]."""

    features: Tensor
    logits: dict[str, Tensor]


class ClipClassifier(nn.Module):
    """Clips [B, frames, 3, H, W] in -1..1 to `Read`.

    heads: what is told apart, and each one's classes. frames: that a clip has. size: side to which frames are
    averaged down. patch: side of what becomes one place of the grid. channels: of the levels, each half as large
    as the one before. width: of a frame's vector. hidden: of the features. narrow: channels in which the grid
    is told place by place, beside its mean and its maximum over all places; 0 is the whole grid alone.
    """

    def __init__(
        self,
        *,
        heads: Mapping[str, Sequence[str]],
        frames: int = 8,
        size: int = 32,
        patch: int = 2,
        channels: Sequence[int] = (32, 64, 96),
        width: int = 96,
        hidden: int = 32,
        narrow: int = 0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "heads": {name: list(classes) for name, classes in heads.items()}, "frames": frames, "size": size,
            "patch": patch, "channels": list(channels), "width": width, "hidden": hidden, "narrow": narrow,
        }  # fmt: skip
        scale = patch * 2 ** (len(channels) - 1)
        if size % scale or not heads or frames < 2:
            raise ValueError(
                f"{len(channels)} levels over patches of {patch} need a size that {scale} divides, got {size}; "
                f"heads and at least 2 frames, got {list(heads)} and {frames}"
            )
        self.size, self.frames, self.patch = size, frames, patch
        self.conv_in = nn.Conv2d(3 * patch**2, channels[0], 3, padding=1)
        levels: list[nn.Module] = [Block(channels[0])]
        for before, after in pairwise(channels):
            levels += [Halved(before, after), Block(after)]
        self.levels = nn.ModuleList(levels)
        places, told = (size // scale) ** 2, channels[-1]
        self.narrow = nn.Conv2d(told, narrow, 1) if narrow else None
        self.place = nn.Linear(2 * told + narrow * places if narrow else told * places, width)
        self.over_time = nn.Linear((frames + bool(narrow)) * width, 2 * hidden)
        self.last = nn.Linear(2 * hidden, hidden)
        self.conv_out = nn.ModuleDict({name: nn.Linear(hidden, len(classes)) for name, classes in heads.items()})

    def forward(self, clips: Tensor) -> Read:
        """Raises: ValueError: another number of frames or channels, or frames smaller than `size`."""
        batch, frames, channels, height, width = clips.shape
        if frames != self.frames or channels != 3 or min(height, width) < self.size:
            raise ValueError(
                f"wanted clips [B, {self.frames}, 3, H, W] of at least {self.size} pixels, got {list(clips.shape)}"
            )
        x = adaptive_avg_pool2d(clips.flatten(0, 1), self.size)
        x = self.conv_in(pixel_unshuffle(x, self.patch))
        for level in self.levels:
            x = level(x.unflatten(0, (batch, frames))).flatten(0, 1)
        x = silu(self.place(self._told(x))).unflatten(0, (batch, frames))
        told = x.flatten(1) if self.narrow is None else torch.cat((x.flatten(1), x.mean(dim=1)), 1)
        features = self.last(silu(self.over_time(told)))
        rows = layer_norm(features, features.shape[1:])
        seen = silu(features if self.narrow is None else rows)
        return Read(rows, {name: head(seen) for name, head in self.conv_out.items()})

    def _told(self, x: Tensor) -> Tensor:
        """Of each frame's grid one row: what is there, wherever it is, beside what is where."""
        if self.narrow is None:
            return x.flatten(1)
        return torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3)), self.narrow(x).flatten(1)), 1)


class Block(nn.Module):
    """[B, F, C, h, w]: two convolutions over places and, between them, one over time; what they make is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Conv1d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, _, height, width = x.shape
        made = self.first(silu(self.norm_1(x.flatten(0, 1)))).unflatten(0, (batch, frames))
        columns = made.permute(0, 3, 4, 2, 1).flatten(0, 2)
        moved = self.time(columns).unflatten(0, (batch, height, width)).permute(0, 4, 3, 1, 2)
        made = (made + moved).flatten(0, 1)
        return x + self.second(silu(self.norm_2(made))).unflatten(0, (batch, frames))


class Halved(nn.Module):
    """[B, F, C, h, w] to half the side, frame by frame."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
