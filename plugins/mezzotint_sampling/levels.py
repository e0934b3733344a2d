"""Noise levels given one by one, and runs put together and taken apart: `Sigmas` to `Sigmas`.

A run that is split runs in two nodes, with two models if wanted; the first part ends at the level
where the second begins. Rising levels take a picture to noise (inversion).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from mezzotint import NoiseSchedule, Sigmas, UserError
from mezzotint_sampling.schedule import Level, level_at, level_of

__all__ = ["Unit", "check_levels", "joined", "levels_from", "reversed_levels", "split", "step_at"]

Unit = Literal["sigma", "time"]


def check_levels(sigmas: Sigmas, *, rising: bool = False, where: str = "sigmas") -> None:
    """Whether a run can visit these levels.

    rising: wants levels that go from clean to noisy, of which only inversion makes sense.
    Raises: UserError: fewer than two, lists of different lengths, a number that is none or negative,
        no signal and no noise, or levels that do not fall (rise); it says which.
    """
    lengths = {name: len(getattr(sigmas, name)) for name in ("alphas", "sigmas", "times")}
    if len(set(lengths.values())) != 1:
        raise UserError(f"{where}: wanted as many alphas, sigmas and times; got {lengths}")
    if len(sigmas.sigmas) < 2:
        raise UserError(f"{where}: wanted at least 2 levels, a beginning and an end; got {len(sigmas.sigmas)}")
    for name in lengths:
        for i, value in enumerate(getattr(sigmas, name)):
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{where}: {name}[{i}] must be a number of at least 0; got {value}")
    ratios = [_ratio(sigmas, i, where) for i in range(len(sigmas.sigmas))]
    for i, (here, there) in enumerate(pairwise(ratios)):
        if (there <= here) if rising else (there >= here):
            wanted = "rise from clean to noisy" if rising else "fall from noisy to clean"
            raise UserError(
                f"{where}: levels must {wanted}; level {i} has sigma / alpha = {here:g}, "
                f"level {i + 1} has {there:g}"
            )


def levels_from(
    schedule: NoiseSchedule, values: Sequence[float], unit: Unit = "sigma", *, end: bool = True
) -> Sigmas:
    """The levels of a list, noisiest first.

    unit: sigma is k-diffusion's, sigma / alpha (for flow models sigma itself); time counts training
        steps, as a denoiser is told them.
    end: adds the clean end, if the list has not got it.
    Raises: UserError: a value that is negative, none, out of the model's range, or does not fall.
    """
    for i, value in enumerate(values):
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"values[{i}] must be a number of at least 0; got {value}")
    levels = [_level(schedule, value, unit, i) for i, value in enumerate(values)]
    if end and (not levels or levels[-1].sigma > 0):
        levels.append(Level(1.0, 0.0, 0.0))
    made = _made(levels)
    check_levels(made, where="values")
    return made


def split(sigmas: Sigmas, step: int) -> tuple[Sigmas, Sigmas]:
    """Levels 0..step and step..: the noisy part and the clean part, which have level `step` in common.

    Raises: UserError: a step that leaves one part without a step of its own.
    """
    steps = len(sigmas.sigmas) - 1
    if not 1 <= step <= steps - 1:
        raise UserError(f"a run of {steps} steps can be split after step 1 to {steps - 1}; got {step}")
    return _part(sigmas, 0, step + 1), _part(sigmas, step, steps + 1)


def step_at(sigmas: Sigmas, sigma: float) -> int:
    """The first level at or below `sigma`, k-diffusion's (sigma / alpha)."""
    ratios = [_ratio(sigmas, i, "sigmas") for i in range(len(sigmas.sigmas))]
    found = [i for i, ratio in enumerate(ratios) if ratio <= sigma]
    if not found:
        raise UserError(f"no level lies at or below sigma {sigma:g}; the last is {ratios[-1]:g}")
    return found[0]


def joined(first: Sigmas, second: Sigmas) -> Sigmas:
    """One run after the other; where they meet at one level, it is kept once.

    Raises: UserError: the second begins above the end of the first.
    """
    meets = (first.alphas[-1], first.sigmas[-1]) == (second.alphas[0], second.sigmas[0])
    begin = 1 if meets else 0
    made = Sigmas(
        alphas=(*first.alphas, *second.alphas[begin:]),
        sigmas=(*first.sigmas, *second.sigmas[begin:]),
        times=(*first.times, *second.times[begin:]),
    )
    check_levels(made, where="joined sigmas")
    return made


def reversed_levels(sigmas: Sigmas) -> Sigmas:
    """The same levels from the other end."""
    return Sigmas(alphas=sigmas.alphas[::-1], sigmas=sigmas.sigmas[::-1], times=sigmas.times[::-1])


def _level(schedule: NoiseSchedule, value: float, unit: Unit, i: int) -> Level:
    if unit == "time":
        last = schedule.train_steps - (0 if schedule.kind == "flow" else 1)
        if value > last:
            raise UserError(f"values[{i}]: the model knows times up to {last}; got {value:g}")
        if schedule.kind != "flow":
            return level_at(schedule, value)
        value = value / schedule.train_steps
    if value == 0:
        return Level(1.0, 0.0, 0.0)
    if schedule.kind == "flow":
        if value > 1:
            raise UserError(f"values[{i}]: sigma of a flow model is at most 1; got {value:g}")
        return Level(1 - value, value, value * schedule.train_steps)
    if value > 1e100:
        raise UserError(f"values[{i}]: sigma is at most 1e100, beyond which no picture is left; got {value:g}")
    return level_of(schedule, value)


def _ratio(sigmas: Sigmas, i: int, where: str) -> float:
    alpha, sigma = sigmas.alphas[i], sigmas.sigmas[i]
    if alpha == 0 and sigma == 0:
        raise UserError(f"{where}: level {i} has neither picture nor noise (alpha = sigma = 0)")
    return sigma / alpha if alpha > 0 else math.inf


def _part(sigmas: Sigmas, begin: int, end: int) -> Sigmas:
    return Sigmas(alphas=sigmas.alphas[begin:end], sigmas=sigmas.sigmas[begin:end], times=sigmas.times[begin:end])


def _made(levels: Sequence[Level]) -> Sigmas:
    if not levels:
        return Sigmas((), (), ())
    alphas, sigmas, times = zip(*levels, strict=True)
    return Sigmas(alphas=alphas, sigmas=sigmas, times=times)
