"""Numbers along the probability-flow ODE: what the samplers' formulas have in common. No tensors.

Symbols: x = alpha x0 + sigma eps, the papers' (alpha, sigma). k-diffusion's sigma is `ratio` here,
sigma / alpha. All formulas hold for variance-preserving, exploding and flow levels, and at alpha = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from mezzotint_kernels import Coefficients

if TYPE_CHECKING:
    from mezzotint import NoiseLevel
    from mezzotint_sampling.protocol import Levels

__all__ = ["Path", "descent", "descents", "euler_row", "log_snr", "quotient", "ratio_of", "twice"]


@dataclass(frozen=True)
class Path:
    """In u = x / scale over tau = sigma / scale the ODE reads du/dtau = d, d = (u - x0) / tau.

    The scale is alpha, as in Karras et al. 2022: then d is eps. For flow models, and where
    alpha = 0, it is alpha + sigma: u = (1 - tau) x0 + tau eps is finite there, and d is eps - x0.
    """

    summed: bool

    @classmethod
    def of(cls, levels: Levels) -> Path:
        is_flow = all(math.isclose(level.alpha + level.sigma, 1, rel_tol=1e-9) for level in levels)
        return cls(is_flow or any(level.alpha == 0 for level in levels))

    def scale(self, level: NoiseLevel) -> float:
        return level.alpha + level.sigma if self.summed else level.alpha

    def tau(self, level: NoiseLevel) -> float:
        return level.sigma / self.scale(level)

    def ratio(self, tau: float) -> float:
        """sigma / alpha at tau; the inverse of `tau`."""
        return tau / (1 - tau) if self.summed else tau


def quotient(here: NoiseLevel, there: NoiseLevel) -> float:
    """ratio' / ratio; e^-h in DPM-Solver's words. 0 from alpha = 0."""
    return (there.sigma * here.alpha) / (there.alpha * here.sigma)


def ratio_of(level: NoiseLevel) -> float:
    """sigma / alpha; infinite where alpha is 0."""
    return level.sigma / level.alpha if level.alpha > 0 else math.inf


def log_snr(level: NoiseLevel) -> float:
    """lambda = log(alpha / sigma), half the log of the signal-to-noise ratio."""
    return math.log(level.alpha / level.sigma) if level.alpha > 0 else -math.inf


def euler_row(here: NoiseLevel, there: NoiseLevel) -> Coefficients:
    """Keep x0 and eps and move to the other level: Euler's step in any scale, and DDIM's."""
    shrink = there.sigma / here.sigma
    return Coefficients(cx=shrink, c0=there.alpha - here.alpha * shrink)


def descent(here: NoiseLevel, there: NoiseLevel, eta: float) -> tuple[NoiseLevel, float]:
    """The cleaner level that an ancestral step goes to, and how much noise leads from it to `there`.

    up^2 = eta^2 sigma'^2 (1 - ratio'^2 / ratio^2), down^2 = sigma'^2 - up^2. Source: k-diffusion's
    `get_ancestral_step`.
    """
    up = min(1.0, eta * math.sqrt(1 - quotient(here, there) ** 2))
    return replace(there, sigma=there.sigma * math.sqrt(1 - up**2)), there.sigma * up


def descents(levels: Levels, eta: float) -> list[NoiseLevel]:
    """The level that each ancestral step goes to before its noise."""
    return [descent(here, there, eta)[0] for here, there in pairwise(levels)]


def twice(targets: Sequence[NoiseLevel]) -> list[tuple[int, int]]:
    """The evaluations of a two-stage method as (step, stage): two a step, one to a clean target."""
    return [(i, stage) for i, there in enumerate(targets) for stage in range(2 if there.sigma > 0 else 1)]
