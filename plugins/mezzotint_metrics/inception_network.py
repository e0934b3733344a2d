"""The network of the Fréchet inception distance: Inception v3 as TensorFlow's graph of 2015-12-05 computes it.

Szegedy et al. 2016, figures 5 to 7, and appendix A of the layout in which its weights are passed around
(pt_inception-2015-12-05). It differs from the network of the same name elsewhere: average pools leave the
border out of their count, the last block pools by maximum, and there are 1008 classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Inception", "Seen"]

Kernel = tuple[int, int]
Step = tuple[int, *tuple[Kernel, ...]]  # channels, and one kernel, or two side by side


class Seen(NamedTuple):
    """features: [B, 2048], the mean over places of the last block. logits: [B, 1008], without the bias."""

    features: Tensor
    logits: Tensor


class Convolution(nn.Module):
    """Convolution, batch norm with what it knows from training, rectifier."""

    def __init__(self, width: int, out: int, kernel: Kernel, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(width, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Branches of convolutions side by side, and a pool; their channels one after the other.

    branches: by the name that their weights have; the steps of one are numbered from 1 where there are several.
    pool: "average" or "maximum", each followed by a convolution to `pooled` channels; or "halve", a maximum over
        every other place, where the branches' last steps skip every other place too.
    """

    def __init__(
        self, width: int, branches: Mapping[str, Sequence[Step]], pool: str = "average", pooled: int = 0
    ) -> None:
        super().__init__()
        self.pool = pool
        self.paths: list[list[list[str]]] = []
        for branch, steps in branches.items():
            path, inner = [], width
            for number, (out, *kernels) in enumerate(steps, 1):
                halved = pool == "halve" and number == len(steps)
                stem = branch if len(steps) == 1 else f"{branch}_{number}"
                names = [stem] if len(kernels) == 1 else [f"{stem}{letter}" for letter in "ab"]
                for name, kernel in zip(names, kernels, strict=True):
                    self.add_module(name, Convolution(inner, out, kernel, 1 + halved, not halved))
                path.append(names)
                inner = out
            self.paths.append(path)
        if pool != "halve":
            self.branch_pool = Convolution(width, pooled, _ONE)

    def forward(self, x: Tensor) -> Tensor:
        found = [self._along(path, x) for path in self.paths]
        if self.pool == "halve":
            return torch.cat([*found, functional.max_pool2d(x, 3, 2)], dim=1)
        if self.pool == "maximum":
            pooled = functional.max_pool2d(x, 3, 1, 1)
        else:
            pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*found, self.branch_pool(pooled)], dim=1)

    def _along(self, path: list[list[str]], x: Tensor) -> Tensor:
        for names in path:
            x = torch.cat([self.get_submodule(name)(x) for name in names], dim=1)
        return x


_ONE, _THREE, _FIVE = (1, 1), (3, 3), (5, 5)
_ACROSS, _DOWN = (1, 7), (7, 1)
_FORK = ((1, 3), (3, 1))


def _wide(width: int, pooled: int) -> Block:
    branches = {
        "branch1x1": [(64, _ONE)],
        "branch5x5": [(48, _ONE), (64, _FIVE)],
        "branch3x3dbl": [(64, _ONE), (96, _THREE), (96, _THREE)],
    }
    return Block(width, branches, "average", pooled)


def _factored(inner: int) -> Block:
    """7x7 as 1x7 and 7x1."""
    branches = {
        "branch1x1": [(192, _ONE)],
        "branch7x7": [(inner, _ONE), (inner, _ACROSS), (192, _DOWN)],
        "branch7x7dbl": [(inner, _ONE), (inner, _DOWN), (inner, _ACROSS), (inner, _DOWN), (192, _ACROSS)],
    }
    return Block(768, branches, "average", 192)


def _forked(width: int, pool: str) -> Block:
    branches = {
        "branch1x1": [(320, _ONE)],
        "branch3x3": [(384, _ONE), (384, *_FORK)],
        "branch3x3dbl": [(448, _ONE), (384, _THREE), (384, *_FORK)],
    }
    return Block(width, branches, pool, 192)


def _blocks() -> dict[str, nn.Module]:
    halving = {"branch3x3": [(384, _THREE)], "branch3x3dbl": [(64, _ONE), (96, _THREE), (96, _THREE)]}
    last_halving = {
        "branch3x3": [(192, _ONE), (320, _THREE)],
        "branch7x7x3": [(192, _ONE), (192, _ACROSS), (192, _DOWN), (192, _THREE)],
    }
    return {
        "Conv2d_1a_3x3": Convolution(3, 32, _THREE, 2, padded=False),
        "Conv2d_2a_3x3": Convolution(32, 32, _THREE, padded=False),
        "Conv2d_2b_3x3": Convolution(32, 64, _THREE),
        "MaxPool_1": nn.MaxPool2d(3, 2),
        "Conv2d_3b_1x1": Convolution(64, 80, _ONE),
        "Conv2d_4a_3x3": Convolution(80, 192, _THREE, padded=False),
        "MaxPool_2": nn.MaxPool2d(3, 2),
        "Mixed_5b": _wide(192, 32),
        "Mixed_5c": _wide(256, 64),
        "Mixed_5d": _wide(288, 64),
        "Mixed_6a": Block(288, halving, "halve"),
        "Mixed_6b": _factored(128),
        "Mixed_6c": _factored(160),
        "Mixed_6d": _factored(160),
        "Mixed_6e": _factored(192),
        "Mixed_7a": Block(768, last_halving, "halve"),
        "Mixed_7b": _forked(1280, "average"),
        "Mixed_7c": _forked(2048, "maximum"),
    }


class Inception(nn.Module):
    """x: [B, 3, 299, 299], bytes as (v - 128) / 128."""

    def __init__(self) -> None:
        super().__init__()
        blocks = _blocks()
        for name, block in blocks.items():
            self.add_module(name, block)
        self.order = tuple(blocks)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> Seen:
        for name in self.order:
            x = self.get_submodule(name)(x)
        features = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        # The score of Salimans et al. takes the product alone, and so do its later implementations.
        return Seen(features, features @ self.fc.weight.mT)
