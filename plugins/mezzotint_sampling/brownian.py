"""Noise as the increments of one Brownian path, for samplers that solve an SDE.

The reverse SDE adds to x / (alpha ratio^2), ratio = sigma / alpha, a Brownian motion W in the time
s = (alpha / sigma)^2, the signal-to-noise ratio: that is the noise of DDPM, of ancestral steps at
eta = 1 and of SDE-DPM-Solver++, exactly. So a step's noise is W's increment over it, whatever the
number of steps, and a run of twice as many steps follows the same path.

W has no end, a bridge B has: W(s) = (1 + s) B(s / (1 + s)). B is worked out where it is asked for
by halving intervals (Levy's construction), each midpoint with counter-based numbers of its own.
Nothing is kept that matters, so queries may come in any order, in any run, on any device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from mezzotint import UserError
from mezzotint_sampling.noise import CounterNumbers, frame_normals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mezzotint import Noise, NoiseLevel
    from mezzotint_kernels import Draw

__all__ = ["BrownianNumbers"]

_DEPTH = 24
"""Levels are told apart to 2^-24 of sigma / (alpha + sigma); a step costs at most as many draws."""


class BrownianNumbers:
    """A `Numbers` whose steps have the increments of one path; starts are those of "philox"."""

    def __init__(self, noise: Noise, shape: Sequence[int], device: str | torch.device = "cpu") -> None:
        self._noise = noise
        self._shape = shape
        self._device = device
        self._counter = CounterNumbers(noise, shape, device)
        # The nodes on the way to the last place asked for; the next one shares the first of them.
        self._way: list[tuple[int, Tensor]] = []
        self._last: tuple[int, Tensor] | None = None

    def at(self, draw: int) -> Tensor | Draw:
        return self._counter.at(draw)

    def known(self, draw: int) -> Tensor | Draw:
        return self._counter.known(draw)

    def between(self, draw: int, here: NoiseLevel, there: NoiseLevel) -> Tensor:
        """(W(there) - W(here)) / sqrt|s(there) - s(here)|, float32; its sign turns with the direction.

        Raises: UserError: a level without noise, or two that are equal to 2^-24.
        """
        first, second = _place(here), _place(there)
        if 0 in (first, second) or first == second:
            raise UserError(
                f"brownian noise is wanted between two different levels with noise; got sigma / alpha = "
                f"{_ratio(here):g} and {_ratio(there):g}"
            )
        (p, p_rest), (q, q_rest) = _clock(first), _clock(second)
        scale = 1 / math.sqrt(abs(q - p) * p_rest * q_rest)
        started = self._bridge(first) if self._last is None or self._last[0] != first else self._last[1]
        ended = self._bridge(second)
        self._last = (second, ended)
        return (ended * (p_rest * scale) - started * (q_rest * scale)).float()

    def _bridge(self, place: int) -> Tensor:
        """B at a place on the grid, float64. Both ends of the grid are 0."""
        zero = torch.zeros((), dtype=torch.float64, device=self._device)
        low, high = 0, 1 << _DEPTH
        values = {low: zero, high: zero}
        way: list[tuple[int, Tensor]] = []
        while place not in values:
            depth, middle = len(way), (low + high) // 2
            if depth < len(self._way) and self._way[depth][0] == middle:
                values[middle] = self._way[depth][1]
            else:
                values[middle] = self._midpoint(low, middle, high, values[low], values[high])
            way.append((middle, values[middle]))
            low, high = (low, middle) if place < middle else (middle, high)
        self._way = way
        return values[place]

    def _midpoint(self, low: int, middle: int, high: int, left: Tensor, right: Tensor) -> Tensor:
        """B at `middle`, given its values at `low` and `high`: Gaussian, with the bridge's variance.

        The clock p runs down as the place goes up; 1 - p runs up, and is as good for a bridge.
        """
        a, m, b = _clock(low)[1], _clock(middle)[1], _clock(high)[1]
        spread = math.sqrt((m - a) * (b - m) / (b - a))
        part = (m - a) / (b - a)
        normals = frame_normals(self._noise, self._shape, middle, ".brownian", self._device).double()
        return left * (1 - part) + right * part + normals * spread


def _place(level: NoiseLevel) -> int:
    """Where a level is on the grid: 0 without noise, 2^24 without a picture."""
    return round(level.sigma / (level.alpha + level.sigma) * (1 << _DEPTH))


def _clock(place: int) -> tuple[float, float]:
    """p = s / (1 + s) = alpha^2 / (alpha^2 + sigma^2) at a place, and 1 - p, both to full precision."""
    noise = place / (1 << _DEPTH)
    picture = 1 - noise
    total = picture**2 + noise**2
    return picture**2 / total, noise**2 / total


def _ratio(level: NoiseLevel) -> float:
    return level.sigma / level.alpha if level.alpha > 0 else math.inf
