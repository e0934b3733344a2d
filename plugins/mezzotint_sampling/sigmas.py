"""Which noise levels a sampling run visits.

Each function gives the evaluated levels, noisiest first; `make_sigmas` adds the clean end (1, 0).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from mezzotint import NoiseSchedule, Sigmas, UserError
from mezzotint_sampling.schedule import Level, level_at, level_of, ratio_range

__all__ = ["ScheduleName", "Spacing", "exponential", "karras", "make_sigmas", "simple", "uniform"]

ScheduleName = Literal["uniform", "discrete", "simple", "karras", "exponential"]
Spacing = Literal["leading", "linspace", "trailing"]

_RHO = 7.0


def make_sigmas(
    schedule: NoiseSchedule,
    steps: int,
    name: ScheduleName = "uniform",
    spacing: Spacing = "trailing",
    denoise: float = 1.0,
    offset: int = 1,
) -> Sigmas:
    """The noise levels of a run of `steps` steps, the clean end included.

    denoise: below 1, only the last part of a longer schedule is run, for image to image: the last
        `steps` steps of int(steps / denoise). So a run has the number of steps asked for, as in
        ComfyUI; diffusers' `strength` runs int(steps * strength) steps of a schedule of `steps`
        instead, which is `steps=int(steps * strength), denoise=strength` here.
    spacing, offset: of the uniform and discrete schedules; see `uniform`.
    Raises: UserError: steps or denoise out of range, or more steps than the model was trained on.
    """
    if steps < 1:
        raise UserError(f"steps must be at least 1; got {steps}")
    if not 0 < denoise <= 1:
        raise UserError(f"denoise must be above 0 and at most 1; got {denoise}")
    total = max(steps, int(steps / denoise + 1e-9))
    if name == "karras":
        levels = karras(schedule, total)
    elif name == "exponential":
        levels = exponential(schedule, total)
    elif name == "simple":
        levels = simple(schedule, total)
    elif name in ("uniform", "discrete"):
        levels = uniform(schedule, total, spacing, offset, whole=name == "discrete")
    else:
        raise UserError(f"unknown schedule {name!r}; known: {', '.join(get_args(ScheduleName))}")
    kept = [*levels[-steps:], Level(1.0, 0.0, 0.0)]
    alphas, sigmas, times = zip(*kept, strict=True)
    return Sigmas(alphas=alphas, sigmas=sigmas, times=times)


def uniform(
    schedule: NoiseSchedule,
    steps: int,
    spacing: Spacing = "trailing",
    offset: int = 1,
    *,
    whole: bool = False,
) -> list[Level]:
    """Evenly spaced in the model's training steps.

    leading: from the clean end, train_steps // steps apart, moved up by `offset` (at most to the
        noisiest level). linspace: both ends of the table. trailing: from the noisiest level down.
    whole: linspace is rounded to whole training steps, as diffusers' DDIM does; its Euler does not.
    Source: Lin et al. 2023, table 2; diffusers' `timestep_spacing`, with the same numbers.
    """
    last = schedule.train_steps - 1
    if (whole or spacing != "linspace") and steps > schedule.train_steps:
        raise UserError(
            f"the schedule needs {steps} whole training steps (steps / denoise), but the model has "
            f"{schedule.train_steps}; use fewer steps, or schedule 'karras'"
        )
    if spacing == "leading":
        indices = np.arange(steps)[::-1] * float(schedule.train_steps // steps)
        indices = indices + min(offset, last - indices[0])
    elif spacing == "linspace":
        indices = np.linspace(0, last, steps)[::-1] if steps > 1 else np.array([float(last)])
        indices = indices.round() if whole else indices
    elif spacing == "trailing":
        apart = schedule.train_steps / steps
        indices = (schedule.train_steps - np.arange(steps) * apart).round() - 1
    else:
        raise UserError(f"unknown spacing {spacing!r}; known: {', '.join(get_args(Spacing))}")
    return [level_at(schedule, float(i)) for i in indices]


def simple(schedule: NoiseSchedule, steps: int) -> list[Level]:
    """Every (train_steps / steps)-th training step from the noisiest down; ComfyUI's "simple"."""
    size = schedule.train_steps
    if steps > size:
        raise UserError(f"schedule 'simple' has at most {size} steps; got {steps}")
    return [level_at(schedule, float(size - 1 - i * size // steps)) for i in range(steps)]


def karras(schedule: NoiseSchedule, steps: int) -> list[Level]:
    """Evenly spaced in (sigma / alpha)^(1/7). Source: Karras et al. 2022, eq. 5.

    A flow schedule is spaced so in its own sigma, which is finite everywhere.
    """
    low, high = _range(schedule)
    ramp = np.linspace(0, 1, steps)
    root_low, root_high = low ** (1 / _RHO), high ** (1 / _RHO)
    return _levels(schedule, (root_high + ramp * (root_low - root_high)) ** _RHO)


def exponential(schedule: NoiseSchedule, steps: int) -> list[Level]:
    """Evenly spaced in log(sigma / alpha), for flow in log(sigma). Source: k-diffusion."""
    low, high = _range(schedule)
    return _levels(schedule, np.exp(np.linspace(np.log(high), np.log(low), steps)))


def _range(schedule: NoiseSchedule) -> tuple[float, float]:
    if schedule.kind == "flow":
        return level_at(schedule, 0).sigma, level_at(schedule, schedule.train_steps - 1).sigma
    return ratio_range(schedule)


def _levels(schedule: NoiseSchedule, values: np.ndarray) -> list[Level]:
    if schedule.kind == "flow":
        return [Level(1 - float(t), float(t), float(t) * schedule.train_steps) for t in values]
    return [level_of(schedule, float(ratio)) for ratio in values]
