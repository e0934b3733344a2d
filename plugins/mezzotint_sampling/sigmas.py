"""Which noise levels a sampling run visits.

Each function gives the evaluated levels, noisiest first; `make_sigmas` adds the end, by default clean (1, 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from mezzotint import NoiseSchedule, Sigmas, UserError
from mezzotint_sampling.align_your_steps import TABLES, TableName, log_linear
from mezzotint_sampling.schedule import Level, level_at, level_of, ratio_range

__all__ = [
    "Options", "ScheduleName", "Spacing", "beta", "exponential", "karras", "kl_optimal", "linear_quadratic",
    "make_sigmas", "resolution_shift", "sgm_uniform", "simple", "table", "uniform",
]  # fmt: skip

ScheduleName = Literal[
    "uniform", "discrete", "simple", "sgm_uniform", "karras", "exponential", "kl_optimal", "beta",
    "linear_quadratic", "align_your_steps",
]  # fmt: skip
Spacing = Literal["leading", "linspace", "trailing"]
End = Literal["clean", "trained"]

_MOST_LEVELS = 100_000
"""Of the schedule whose end is run; more take longer to work out than a picture."""


@dataclass(frozen=True)
class Options:
    """What shapes some of the schedules; each says which of them it looks at.

    sigma_min, sigma_max: k-diffusion's sigma, for flow models its own; None is the model's.
    """

    spacing: Spacing = "trailing"
    offset: int = 1
    rho: float = 7.0
    sigma_min: float | None = None
    sigma_max: float | None = None
    alpha: float = 0.6
    beta: float = 0.6
    threshold: float = 0.025
    table: TableName = "sd1"


def make_sigmas(
    schedule: NoiseSchedule,
    steps: int,
    name: ScheduleName = "uniform",
    spacing: Spacing = "trailing",
    denoise: float = 1.0,
    offset: int = 1,
    *,
    shift: float | None = None,
    options: Options | None = None,
    end: End = "clean",
) -> Sigmas:
    """The noise levels of a run of `steps` steps, its end included.

    denoise: below 1, only the last part of a longer schedule is run, for image to image: the last
        `steps` steps of int(steps / denoise). So a run has the number of steps asked for, as in
        ComfyUI; diffusers' `strength` runs int(steps * strength) steps of a schedule of `steps`
        instead, which is `steps=int(steps * strength), denoise=strength` here.
    shift: of a flow model, in place of the schedule's own.
    spacing, offset, options: of some schedules; see each.
    end: clean is no noise at all; trained the cleanest level of the training steps, as Stable
        Diffusion's own samplers end (diffusers' `set_alpha_to_one=False`).
    Raises: UserError: what is out of range, or does not belong to the schedule or the model.
    """
    if steps < 1:
        raise UserError(f"steps must be at least 1; got {steps}")
    if not 0 < denoise <= 1:
        raise UserError(f"denoise must be above 0 and at most 1; got {denoise}")
    if name not in _SCHEDULES:
        raise UserError(f"unknown schedule {name!r}; known: {', '.join(get_args(ScheduleName))}")
    chosen = replace(options or Options(), spacing=spacing, offset=offset)
    _check_range(name, chosen)
    total = max(steps, int(steps / denoise + 1e-9))
    if total > _MOST_LEVELS:
        raise UserError(
            f"{steps} steps at denoise {denoise:g} are the end of a run of {total} (steps / denoise); "
            f"wanted at most {_MOST_LEVELS}: use a larger denoise, or fewer steps"
        )
    levels = _SCHEDULES[name](_with_shift(schedule, shift), total, chosen)
    last = Level(1.0, 0.0, 0.0) if end == "clean" else level_at(schedule, 0.0)
    if levels[-1].sigma <= last.sigma:
        raise UserError(
            "end 'trained' is the cleanest level of the training steps, where this schedule's last step starts "
            "already; take end 'clean', or spacing 'leading' with an offset"
        )
    kept = [*levels[-steps:], last]
    alphas, sigmas, times = zip(*kept, strict=True)
    return Sigmas(alphas=alphas, sigmas=sigmas, times=times)


def resolution_shift(rule: Literal["flux", "root"], size: int, trained: int) -> float:
    """How far a flow model's schedule is shifted for `size` latents a frame, height times width.

    root: (size / trained)^(1/2), for a model trained on `trained` latents. Source: Esser et al. 2024,
        eq. 23. flux: exp(mu), mu linear in the number of 2 x 2 patches, 0.5 at 256 and 1.15 at 4096.
        Source: Black Forest Labs' Flux, and diffusers' `calculate_shift`.
    """
    if rule == "root":
        return math.sqrt(size / trained)
    return math.exp(0.5 + (size / 4 - 256) * (1.15 - 0.5) / (4096 - 256))


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
        indices = indices + min(offset, int(last - indices[0]))
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


def sgm_uniform(schedule: NoiseSchedule, steps: int) -> list[Level]:
    """Even in the training steps from the noisiest down, the cleanest left out; as in Stability's SGM."""
    indices = np.linspace(schedule.train_steps - 1, 0, steps + 1)[:-1]
    return [level_at(schedule, float(i)) for i in indices]


def beta(schedule: NoiseSchedule, steps: int, alpha: float = 0.6, beta: float = 0.6) -> list[Level]:
    """Training steps at even quantiles of a beta distribution: denser at both ends below 1.

    Source: Lee et al. 2024, "Beta sampling is all you need". ComfyUI rounds to whole training steps
    and drops what coincides; here they stay fractional, and the number of steps as asked for.
    """
    if not (alpha > 0 and beta > 0):
        raise UserError(f"alpha and beta of the beta schedule must be above 0; got {alpha} and {beta}")
    from scipy.special import betaincinv

    quantiles = betaincinv(alpha, beta, 1 - np.arange(steps) / steps)
    return [level_at(schedule, float(q) * (schedule.train_steps - 1)) for q in quantiles]


def linear_quadratic(schedule: NoiseSchedule, steps: int, threshold: float = 0.025) -> list[Level]:
    """The first half of the steps takes `threshold` of the noise evenly, the rest quadratically more.

    Of sigma / alpha, for flow of sigma. Source: Polyak et al. 2024, "Movie Gen"; Genmo's Mochi.
    """
    if not 0 < threshold < 1:
        raise UserError(f"threshold of the linear-quadratic schedule must be between 0 and 1; got {threshold}")
    high, linear = _range(schedule)[1], max(steps // 2, 1)
    if steps == 1:
        return _levels(schedule, np.array([high]))
    apart, rest = threshold / linear, steps - linear
    # The parabola goes on with the slope of the line and ends at 1.
    bend = (1 - threshold - apart * rest) / rest**2
    gone = np.arange(steps, dtype=np.float64)
    past = np.maximum(gone - linear, 0)
    return _levels(schedule, high * (1 - (apart * gone + bend * past**2)))


def table(schedule: NoiseSchedule, steps: int, name: TableName = "sd1") -> list[Level]:
    """Levels found by optimisation for one family of models; see `mezzotint_sampling.align_your_steps`.

    Raises: UserError: a flow model, or a table that begins above the model's noisiest level.
    """
    if schedule.kind == "flow":
        raise UserError(f"schedule 'align_your_steps' has no table for flow models; known: {', '.join(TABLES)}")
    values, high = log_linear(TABLES[name], steps + 1)[:-1], ratio_range(schedule)[1]
    if values[0] > 1.01 * high:
        raise UserError(
            f"the table {name!r} begins at sigma {values[0]:g}, the model's noisiest level is {high:.4g}; "
            f"known: {', '.join(TABLES)}"
        )
    return _levels(schedule, np.minimum(values, high))


def karras(schedule: NoiseSchedule, steps: int, options: Options | None = None) -> list[Level]:
    """Evenly spaced in (sigma / alpha)^(1/rho). Source: Karras et al. 2022, eq. 5.

    A flow schedule is spaced so in its own sigma, which is finite everywhere.
    """
    options = options or Options()
    if not options.rho > 0:
        raise UserError(f"rho of the karras schedule must be above 0; got {options.rho}")
    low, high = _bounds(schedule, options)
    ramp = np.linspace(0, 1, steps)
    with np.errstate(over="ignore", invalid="ignore"):  # `_levels` refuses what comes of that
        root_low, root_high = (np.float64(end) ** (1 / options.rho) for end in (low, high))
        return _levels(schedule, (root_high + ramp * (root_low - root_high)) ** options.rho)


def exponential(schedule: NoiseSchedule, steps: int, options: Options | None = None) -> list[Level]:
    """Evenly spaced in log(sigma / alpha), for flow in log(sigma). Source: k-diffusion."""
    low, high = _bounds(schedule, options or Options())
    return _levels(schedule, np.exp(np.linspace(np.log(high), np.log(low), steps)))


def kl_optimal(schedule: NoiseSchedule, steps: int, options: Options | None = None) -> list[Level]:
    """Evenly spaced in the angle, arctan(sigma / alpha). Source: Sabour et al. 2024,
    the optimum for Gaussian data."""
    low, high = _bounds(schedule, options or Options())
    return _levels(schedule, np.tan(np.linspace(np.arctan(high), np.arctan(low), steps)))


_SCHEDULES: dict[str, Callable[[NoiseSchedule, int, Options], list[Level]]] = {
    "uniform": lambda s, n, o: uniform(s, n, o.spacing, o.offset),
    "discrete": lambda s, n, o: uniform(s, n, o.spacing, o.offset, whole=True),
    "simple": lambda s, n, o: simple(s, n),
    "sgm_uniform": lambda s, n, o: sgm_uniform(s, n),
    "karras": karras,
    "exponential": exponential,
    "kl_optimal": kl_optimal,
    "beta": lambda s, n, o: beta(s, n, o.alpha, o.beta),
    "linear_quadratic": lambda s, n, o: linear_quadratic(s, n, o.threshold),
    "align_your_steps": lambda s, n, o: table(s, n, o.table),
}
_BOUNDED = ("karras", "exponential", "kl_optimal")


def _check_range(name: str, options: Options) -> None:
    for which in ("sigma_min", "sigma_max"):
        value = getattr(options, which)
        if value is None:
            continue
        if name not in _BOUNDED:
            raise UserError(f"{which} belongs to the schedules {', '.join(_BOUNDED)}; got it with {name!r}")
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{which} must be above 0 and finite; got {value}")


def _with_shift(schedule: NoiseSchedule, shift: float | None) -> NoiseSchedule:
    if shift is None:
        return schedule
    if schedule.kind != "flow":
        raise UserError(f"shift belongs to flow models; the model's schedule is {schedule.kind!r}")
    if not (shift > 0 and math.isfinite(shift)):
        raise UserError(f"shift must be above 0 and finite; got {shift}")
    return schedule.replace(shift=shift)


def _bounds(schedule: NoiseSchedule, options: Options) -> tuple[float, float]:
    low, high = _range(schedule)
    low = low if options.sigma_min is None else options.sigma_min
    high = high if options.sigma_max is None else options.sigma_max
    if not low < high:
        raise UserError(f"sigma_min must be below sigma_max; got {low:g} and {high:g}")
    if schedule.kind == "flow" and high > 1:
        raise UserError(f"sigma_max of a flow model is at most 1; got {high:g}")
    return low, high


def _range(schedule: NoiseSchedule) -> tuple[float, float]:
    if schedule.kind == "flow":
        return level_at(schedule, 0).sigma, level_at(schedule, schedule.train_steps - 1).sigma
    return ratio_range(schedule)


def _levels(schedule: NoiseSchedule, values: np.ndarray) -> list[Level]:
    """Levels of sigma / alpha, for flow of sigma. Raises: UserError: options so extreme that they do not fall."""
    if not (values[0] <= 1e100 and values[-1] > 0 and (np.diff(values) < 0).all()):
        raise UserError(
            "with these options the noise levels do not fall from one step to the next, or are out of "
            f"the range of numbers: from {values[0]:g} to {values[-1]:g} in {len(values)} steps; "
            "use less extreme options, or fewer steps"
        )
    if schedule.kind == "flow":
        return [Level(1 - float(t), float(t), float(t) * schedule.train_steps) for t in values]
    return [level_of(schedule, float(ratio)) for ratio in values]
