"""Noise schedules as numbers: alpha, sigma and the model's own time along the forward process.

x = alpha * x0 + sigma * eps. A schedule is a table of `train_steps` levels, index 0 the cleanest;
between two entries it is interpolated, so an index may be fractional. Plain float64 without torch.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mezzotint import NoiseSchedule, UserError

__all__ = ["Level", "alphas_cumprod", "index_of", "level_at", "level_of", "ratio_range"]

_MAX_RATIO = 4096.0
"""Stands for sigma / alpha at zero terminal SNR where a schedule is spaced in sigma / alpha."""


class Level(NamedTuple):
    """One point of the forward process."""

    alpha: float
    sigma: float
    time: float

    @property
    def ratio(self) -> float:
        """k-diffusion's sigma: noise over signal; infinite where alpha is 0."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf


def alphas_cumprod(schedule: NoiseSchedule) -> np.ndarray:
    """The products of (1 - beta) of a variance-preserving schedule: [train_steps], read-only.

    Sources: linear, Ho et al. 2020; scaled_linear, Rombach et al. 2022; cosine, Nichol and
    Dhariwal 2021, eq. 17; zero terminal SNR, Lin et al. 2023, algorithm 1.
    Raises: UserError: a flow schedule has no betas.
    """
    return _alphas_cumprod(
        schedule.kind,
        schedule.beta_start,
        schedule.beta_end,
        schedule.train_steps,
        schedule.zero_terminal_snr,
    )


def level_at(schedule: NoiseSchedule, index: float) -> Level:
    """The level at a fractional index in 0..train_steps - 1.

    Variance preserving: sigma / alpha is interpolated log-linearly (k-diffusion's `t_to_sigma`),
    and the time is the index. Flow: index k is t = (k + 1) / train_steps, shifted, and the time is
    t * train_steps.
    """
    if schedule.kind == "flow":
        t = _shifted((index + 1) / schedule.train_steps, schedule.shift)
        return Level(1 - t, t, t * schedule.train_steps)
    table = alphas_cumprod(schedule)
    low = min(int(index), len(table) - 1)
    part = index - low
    if part == 0:
        return Level(math.sqrt(table[low]), math.sqrt(1 - table[low]), index)
    first, second = float(table[low]), float(table[low + 1])
    if second == 0:
        # No logarithm at zero SNR: go along the circle instead.
        angle = math.acos(math.sqrt(first))
        angle += part * (math.pi / 2 - angle)
        return Level(math.cos(angle), math.sin(angle), index)
    log_ratio = (1 - part) * _log_ratio(first) + part * _log_ratio(second)
    return _from_ratio(math.exp(log_ratio), index)


def level_of(schedule: NoiseSchedule, ratio: float) -> Level:
    """The level whose sigma / alpha is `ratio`, with the time that the model knows it by."""
    index = index_of(schedule, ratio)
    if schedule.kind == "flow":
        t = ratio / (1 + ratio)
        return Level(1 - t, t, t * schedule.train_steps)
    return _from_ratio(ratio, index)


def index_of(schedule: NoiseSchedule, ratio: float) -> float:
    """The fractional index of sigma / alpha: k-diffusion's `sigma_to_t`.

    Log-linear between entries; outside the table the nearest end of it.
    """
    last = schedule.train_steps - 1
    if schedule.kind == "flow":
        t = ratio / (1 + ratio)
        unshifted = t / (schedule.shift - (schedule.shift - 1) * t)
        return min(max(unshifted * schedule.train_steps - 1, 0.0), float(last))
    table = alphas_cumprod(schedule)
    finite = table[table > 0]
    ratios = 0.5 * (np.log1p(-finite) - np.log(finite))
    if len(finite) <= last and math.log(ratio) > ratios[-1]:
        return float(last)
    return float(np.interp(math.log(ratio), ratios, np.arange(len(finite))))


def ratio_range(schedule: NoiseSchedule) -> tuple[float, float]:
    """The smallest and the largest sigma / alpha of the table; zero SNR counts as 4096."""
    last = level_at(schedule, schedule.train_steps - 1).ratio
    return level_at(schedule, 0).ratio, min(last, _MAX_RATIO)


@lru_cache(maxsize=64)
def _alphas_cumprod(kind: str, start: float, end: float, steps: int, zero_terminal_snr: bool) -> np.ndarray:
    if kind == "linear":
        betas = np.linspace(start, end, steps)
    elif kind == "scaled_linear":
        betas = np.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2
    elif kind == "cosine":
        bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    else:
        raise UserError(f"a schedule of kind {kind!r} has no betas; wanted linear, scaled_linear or cosine")
    table = np.cumprod(1 - betas)
    if zero_terminal_snr:
        root = np.sqrt(table)
        table = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    table.flags.writeable = False
    return table


def _shifted(t: float, shift: float) -> float:
    """Esser et al. 2024, eq. 23: more of the run at high noise, for large pictures."""
    return shift * t / (1 + (shift - 1) * t)


def _log_ratio(alpha_cumprod: float) -> float:
    return 0.5 * (math.log1p(-alpha_cumprod) - math.log(alpha_cumprod))


def _from_ratio(ratio: float, index: float) -> Level:
    alpha = 1 / math.sqrt(1 + ratio * ratio)
    return Level(alpha, ratio * alpha, index)
