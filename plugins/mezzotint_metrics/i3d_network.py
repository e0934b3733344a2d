"""I3D: the Inception network of 2014 with every kernel blown up over time, which the Fréchet video distance reads.

Carreira and Zisserman 2017, figure 3. Names of the weights are those of pytorch-i3d, whose rgb_imagenet.pt has the
published numbers of Kinetics-400. Borders are as TensorFlow's "SAME": as much zero as the strides need, the odd
one behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["I3D", "LEAST_FRAMES", "SIDE"]

SIDE = 224
LEAST_FRAMES = 9  # which the strides make 2, and the last pool reads two

Triple = tuple[int, int, int]

# Each block's channels: the plain branch; before and in the first 3x3x3; the same of the second; behind the pool.
_MIXED: dict[str, tuple[int, Sequence[int]]] = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


class I3D(nn.Module):
    """Clips [B, 3, F, 224, 224] in -1..1 to the logits of `classes` actions, [B, classes], the mean over time."""

    def __init__(self, classes: int = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Convolution(3, 64, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Convolution(64, 64, (1, 1, 1))
        self.Conv3d_2c_3x3 = Convolution(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self._add_mixed("Mixed_3")
        self.MaxPool3d_4a_3x3 = Pool((3, 3, 3), (2, 2, 2))
        self._add_mixed("Mixed_4")
        self.MaxPool3d_5a_2x2 = Pool((2, 2, 2), (2, 2, 2))
        self._add_mixed("Mixed_5")
        self.logits = Logits(1024, classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Raises: ValueError: another size, or fewer than 9 frames."""
        if clips.ndim != 5 or clips.shape[1] != 3 or tuple(clips.shape[3:]) != (SIDE, SIDE):
            raise ValueError(f"wanted clips [B, 3, F, {SIDE}, {SIDE}], got {list(clips.shape)}")
        if clips.shape[2] < LEAST_FRAMES:
            raise ValueError(f"wanted at least {LEAST_FRAMES} frames, got {clips.shape[2]}")
        x = clips
        for name, layer in self.named_children():
            if name != "logits":
                x = layer(x)
        pooled = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        made: Tensor = self.logits(pooled)
        return made.mean(dim=(2, 3, 4))

    def _add_mixed(self, start: str) -> None:
        for name, (width, channels) in _MIXED.items():
            if name.startswith(start):
                self.add_module(name, Mixed(width, channels))


class Convolution(nn.Module):
    """Convolution, batch norm with what it knows from training, rectifier."""

    def __init__(self, width: int, out: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(width, out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv3d(padded(x, self.kernel, self.stride))))


class Pool(nn.Module):
    """The maximum of each window. What it reads is rectified, so zeros at the border never win."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool3d(padded(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side: 1x1x1, two times 3x3x3, and a pool; their channels one after the other."""

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        plain, before_1, first, before_2, second, behind = channels
        self.b0 = Convolution(width, plain, (1, 1, 1))
        self.b1a, self.b1b = Convolution(width, before_1, (1, 1, 1)), Convolution(before_1, first, (3, 3, 3))
        self.b2a, self.b2b = Convolution(width, before_2, (1, 1, 1)), Convolution(before_2, second, (3, 3, 3))
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Convolution(width, behind, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class Logits(nn.Module):
    """A convolution of single places, with bias."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv3d(x)
        return made


def padded(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """[B, C, F, H, W] with the zeros of TensorFlow's "SAME" padding: outputs are ceil(length / stride)."""
    sides: list[int] = []
    for length, wide, step in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        zeros = max((-(-length // step) - 1) * step + wide - length, 0)
        sides += [zeros // 2, zeros - zeros // 2]
    return functional.pad(x, sides)
