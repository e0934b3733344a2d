"""The numbers of a `Noise` value: those that a run starts from, and those of each of its steps.

Draw 0 is the start; draw k + 1 belongs to model evaluation k. The known region of inpainting has
numbers of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch

from mezzotint import Noise
from mezzotint_kernels import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import NoiseLevel

__all__ = ["CounterNumbers", "GeneratorNumbers", "Numbers", "numbers_of", "starting_point"]

_STREAM = "sampling.noise"


class Numbers(Protocol):
    """Standard normal numbers of one run, addressed by draw: any draw, in any order."""

    def at(self, draw: int) -> Tensor | Draw: ...
    def known(self, draw: int) -> Tensor | Draw: ...


class CounterNumbers:
    """Counter-based numbers: the same on every device, in any batch, fresh or resumed."""

    def __init__(self, noise: Noise) -> None:
        self._noise = noise

    def at(self, draw: int) -> Draw:
        return self._draw(draw, "")

    def known(self, draw: int) -> Draw:
        return self._draw(draw, ".known")

    def _draw(self, draw: int, use: str) -> Draw:
        stream = (self._noise.stream or _STREAM) + use
        return Draw(self._noise.seed, draw, stream, self._noise.frames == "shared")


class GeneratorNumbers:
    """What `torch.Generator("cpu")` gives, one generator a sample, seeded with seed + i.

    The start is bit-equal to diffusers with a list of generators (and to ComfyUI for one picture);
    later draws go on from there, as a diffusers scheduler's do. A draw that lies behind is reached
    by starting again, so a resumed run gets the same numbers.
    """

    def __init__(self, noise: Noise, shape: tuple[int, ...], device: str | torch.device) -> None:
        self._noise = noise
        self._shape = shape
        self._device = device
        self._known = CounterNumbers(noise)
        self._restart()

    def at(self, draw: int) -> Tensor:
        if draw < self._next:
            self._restart()
        while self._next < draw:
            self._draw()
        return self._draw()

    def known(self, draw: int) -> Draw:
        return self._known.known(draw)

    def _restart(self) -> None:
        self._next = 0
        self._generators = [
            torch.Generator("cpu").manual_seed(self._noise.seed + i) for i in range(self._shape[0])
        ]

    def _draw(self) -> Tensor:
        self._next += 1
        one = list(self._shape[1:])
        if self._noise.frames == "shared" and len(one) == 4:
            one[1] = 1
        drawn = torch.stack([torch.randn(one, generator=g) for g in self._generators])
        return drawn.expand(self._shape).to(self._device)


def numbers_of(
    noise: Noise, shape: tuple[int, ...], device: str | torch.device = "cpu"
) -> CounterNumbers | GeneratorNumbers:
    """The numbers of a noise value for a run on tensors of `shape`, [B, ...]."""
    if noise.kind == "torch":
        return GeneratorNumbers(noise, shape, device)
    return CounterNumbers(noise)


def starting_point(latents: Tensor, level: NoiseLevel, numbers: Numbers) -> Tensor:
    """alpha * latents + sigma * noise at `level`, in the dtype of the latents.

    Latents that are zero throughout hold no picture. A picture of unit variance is assumed in their
    place, so the start is sqrt(alpha^2 + sigma^2) * noise: variance 1 in a variance-preserving
    schedule, as in diffusers and ComfyUI.
    """
    noise = numbers.at(0)
    if isinstance(noise, Draw):
        noise = noise.normals(latents.shape, device=latents.device)
    noise = noise.to(latents)
    if not torch.any(latents):
        return noise * math.hypot(level.alpha, level.sigma)
    return latents * level.alpha + noise * level.sigma
