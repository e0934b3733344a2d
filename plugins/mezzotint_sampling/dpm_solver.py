"""DPM-Solver++: exponential integrators that extrapolate the clean picture over log(alpha / sigma).

    x' = (sigma' / sigma) x + alpha' (1 - e^-h) D

with h the step in lambda = log(alpha / sigma) and D the picture, extrapolated by each method in its
own way. The forms for the SDE damp x by e^(-eta h) more, weigh D with 1 - e^(-(1 + eta) h), and add
noise of variance sigma'^2 (1 - e^(-2 eta h)). Sources: Lu et al. 2022, "DPM-Solver++"; k-diffusion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mezzotint_kernels import Coefficients
from mezzotint_sampling.path import descent, descents, euler_row, log_snr, quotient, ratio_of, twice
from mezzotint_sampling.protocol import State, evaluations

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import NoiseLevel
    from mezzotint_sampling.protocol import Advance, Levels

__all__ = [
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2s", "dpmpp_2s_ancestral", "dpmpp_3m", "dpmpp_3m_sde", "dpmpp_sde",
]  # fmt: skip

Eta = Annotated[float, Field(ge=0)]


def dpmpp_2m(advance: Advance, levels: Levels, state: State) -> Iterator[State]:
    """DPM-Solver++(2M). Source: Lu et al. 2022, "DPM-Solver++", alg. 2.

    D = (1 + 1/(2r)) x0 - 1/(2r) x0_last, with r = h_last / h. First order at the first and the last
    step.
    """
    return dpmpp_2m_sde(advance, levels, state, eta=0.0)


def dpmpp_2m_sde(
    advance: Advance,
    levels: Levels,
    state: State,
    *,
    eta: Eta = 1.0,
    solver: Literal["midpoint", "heun"] = "midpoint",
) -> Iterator[State]:
    """SDE-DPM-Solver++(2M). Source: Lu et al. 2022, "DPM-Solver++", eq. 18; k-diffusion.

    solver: how the slope of the picture is weighed: as if constant to half the step (midpoint), or
        by its integral (heun).
    """
    for i in range(state.step, len(levels) - 1):
        here, there = levels[i], levels[i + 1]
        row = _first_order(here, there, eta)
        history: tuple[Tensor, ...] = ()
        if _order(levels, i, 2) == 2:
            r = _r(levels, i, 1)
            if solver == "midpoint":
                gain = there.alpha * 0.5 * (1 - quotient(here, there) ** (1 + eta))
            else:
                gain = there.alpha * _phi_2(here, there, eta)
            row = replace(row, c0=row.c0 + gain / r, ch=(-gain / r,))
            history = state.history
        result = advance(state.x, here, there, row, history)
        state = State(state.step + 1, result.x, (result.x0,), result.x0)
        yield state


def dpmpp_3m(advance: Advance, levels: Levels, state: State, *, exact: bool = False) -> Iterator[State]:
    """DPM-Solver++(3M): the picture as a parabola. Source: Lu et al. 2022, section 5; k-diffusion.

    exact: as in `dpmpp_3m_sde`.
    """
    return dpmpp_3m_sde(advance, levels, state, eta=0.0, exact=exact)


def dpmpp_3m_sde(
    advance: Advance, levels: Levels, state: State, *, eta: Eta = 1.0, exact: bool = False
) -> Iterator[State]:
    """SDE-DPM-Solver++(3M). Source: k-diffusion's `sample_dpmpp_3m_sde`.

    With r0 = h_last / h and r1 = h_before / h: slope D1 = d0 + (d0 - d1) r0 / (r0 + r1) and bend
    D2 = (d0 - d1) / (r0 + r1), from d0 = (x0 - x0_last) / r0 and d1 = (x0_last - x0_before) / r1.
    exact: D2 with the weight that the parabola's integral has, 2 phi_3, which makes the method one
        of order 3. The authors' code, k-diffusion and diffusers take half of it, and so does this
        unless asked: that is of order 2, with a smaller error than 2M.
    """
    for i in range(state.step, len(levels) - 1):
        here, there = levels[i], levels[i + 1]
        row, order = _first_order(here, there, eta), _order(levels, i, 3)
        if order > 1:
            slope = there.alpha * _phi_2(here, there, eta)
            r0 = _r(levels, i, 1)
            c0, c1 = slope / r0, 0.0
            if order == 3:
                span = (1 + eta) * (log_snr(there) - log_snr(here))
                bend = there.alpha * (_phi_2(here, there, eta) / span - 0.5) * (2 if exact else 1)
                r1 = _r(levels, i, 2)
                # slope D1 - bend D2, sorted by d0 and d1.
                of_d1 = (bend - slope * r0) / (r0 + r1)
                c0, c1 = (slope - of_d1) / r0, of_d1 / r1
            row = replace(row, c0=row.c0 + c0, ch=(c1 - c0, -c1)[: order - 1])
        result = advance(state.x, here, there, row, state.history[: order - 1])
        state = State(state.step + 1, result.x, (result.x0, *state.history[:1]), result.x0)
        yield state


@evaluations(lambda levels: len(twice(descents(levels, 0.0))))
def dpmpp_2s(advance: Advance, levels: Levels, state: State) -> Iterator[State]:
    """DPM-Solver++(2S): the picture at the middle of each step. Source: Lu et al. 2022, alg. 1."""
    return dpmpp_2s_ancestral(advance, levels, state, eta=0.0)


@evaluations(lambda levels, eta=1.0: len(twice(descents(levels, eta))))
def dpmpp_2s_ancestral(advance: Advance, levels: Levels, state: State, *, eta: Eta = 1.0) -> Iterator[State]:
    """DPM-Solver++(2S) to a lower level, and fresh noise up to the next. Source: k-diffusion.

    Between the two evaluations of a step the state is at the middle, with the sample before as
    history.
    """
    for i, stage in twice(descents(levels, eta))[state.step :]:
        here, there = levels[i], levels[i + 1]
        down, up = descent(here, there, eta)
        middle = there if down.sigma == 0 else _middle(advance, here, down)
        if down.sigma == 0:
            result = advance(state.x, here, there, replace(euler_row(here, down), cz=up))
        elif stage == 0:
            result = advance(state.x, here, middle, euler_row(here, middle))
        else:
            row = replace(_second_stage(here, down), cz=up)
            result = advance(state.x, middle, there, row, state.history, since=here)
        kept = (state.x,) if down.sigma > 0 and stage == 0 else ()
        state = State(state.step + 1, result.x, kept, result.x0)
        yield state


@evaluations(lambda levels, eta=1.0: len(twice(levels[1:])))
def dpmpp_sde(advance: Advance, levels: Levels, state: State, *, eta: Eta = 1.0) -> Iterator[State]:
    """DPM-Solver++ (stochastic): ancestral to the middle as well. Source: k-diffusion.

    It is made for Brownian noise, where that of the whole step contains that of its half; with
    independent numbers few steps lose contrast.
    Between the two evaluations of a step the state is at the middle, with the sample before as
    history.
    """
    for i, stage in twice(levels[1:])[state.step :]:
        here, there = levels[i], levels[i + 1]
        middle = there if there.sigma == 0 else _middle(advance, here, there)
        if stage == 0:
            down, up = descent(here, middle, eta)
            result = advance(state.x, here, middle, replace(euler_row(here, down), cz=up))
        else:
            down, up = descent(here, there, eta)
            row = replace(_second_stage(here, down), cz=up)
            result = advance(state.x, middle, there, row, state.history, since=here)
        kept = (state.x,) if there.sigma > 0 and stage == 0 else ()
        state = State(state.step + 1, result.x, kept, result.x0)
        yield state


def _first_order(here: NoiseLevel, there: NoiseLevel, eta: float) -> Coefficients:
    """The step with the picture as it is."""
    q = quotient(here, there)
    return Coefficients(
        cx=there.sigma / here.sigma * q**eta,
        c0=there.alpha * (1 - q ** (1 + eta)),
        cz=there.sigma * math.sqrt(1 - q ** (2 * eta)),
    )


def _second_stage(here: NoiseLevel, there: NoiseLevel) -> Coefficients:
    """The whole step with the picture that the middle saw, and the sample before as history."""
    return Coefficients(c0=there.alpha * (1 - quotient(here, there)), ch=(there.sigma / here.sigma,))


def _middle(advance: Advance, here: NoiseLevel, there: NoiseLevel) -> NoiseLevel:
    """The level half way in lambda.

    From alpha = 0 lambda comes from -infinity; e^lambda weighs the way, and its mean is at
    lambda' - 1.
    """
    low, high = ratio_of(there), ratio_of(here)
    return advance.level(math.e * low if math.isinf(high) else math.sqrt(low * high), here)


def _order(levels: Levels, i: int, order: int) -> int:
    """Of step i: 1 to the clean end; else as many as there are levels behind with a finite lambda."""
    if levels[i + 1].sigma == 0:
        return 1
    return max(1, min(order, i + 1 if levels[0].alpha > 0 else i))


def _r(levels: Levels, i: int, back: int) -> float:
    """The size of an earlier step in lambda, relative to that of step i."""
    before = log_snr(levels[i - back + 1]) - log_snr(levels[i - back])
    return before / (log_snr(levels[i + 1]) - log_snr(levels[i]))


def _phi_2(here: NoiseLevel, there: NoiseLevel, eta: float) -> float:
    """1 - (1 - e^-k) / k with k = (1 + eta) h: what a slope of the picture adds over the step."""
    k = (1 + eta) * (log_snr(there) - log_snr(here))
    return 1 + math.expm1(-k) / k
