"""The midpoint method: DPM2 of Karras et al. and its ancestral form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint_kernels import Coefficients
from mezzotint_sampling.path import Path, descent, descents, euler_row, twice
from mezzotint_sampling.protocol import State, evaluations

if TYPE_CHECKING:
    from mezzotint_sampling.protocol import Advance, Levels

__all__ = ["dpm_2", "dpm_2_ancestral"]


@evaluations(lambda levels: len(twice(descents(levels, 0.0))))
def dpm_2(advance: Advance, levels: Levels, state: State) -> Iterator[State]:
    """A step with the slope at its geometric middle. Source: Karras et al. 2022, alg. 3; k-diffusion.

    u' = u + (tau' - tau) d(tau_mid), tau_mid^2 = tau tau'.
    """
    return dpm_2_ancestral(advance, levels, state, eta=0.0)


@evaluations(lambda levels, eta=1.0: len(twice(descents(levels, eta))))
def dpm_2_ancestral(
    advance: Advance, levels: Levels, state: State, *, eta: Annotated[float, Field(ge=0)] = 1.0
) -> Iterator[State]:
    """DPM2 to a lower level, and fresh noise up to the next. Source: k-diffusion.

    Between the two evaluations of a step the state is at the middle, with the sample before as
    history.
    """
    path = Path.of(levels)
    for i, stage in twice(descents(levels, eta))[state.step :]:
        here, there = levels[i], levels[i + 1]
        down, up = descent(here, there, eta)
        if down.sigma == 0:
            result = advance(state.x, here, there, replace(euler_row(here, down), cz=up))
            state = State(state.step + 1, result.x, x0=result.x0)
            yield state
            continue
        middle = advance.level(path.ratio(math.sqrt(path.tau(here) * path.tau(down))), here)
        if stage == 0:
            result = advance(state.x, here, middle, euler_row(here, middle))
            state = State(state.step + 1, result.x, (state.x,), result.x0)
        else:
            slope = (path.tau(down) - path.tau(here)) / path.tau(middle)
            ahead = path.scale(down)
            row = Coefficients(
                cx=ahead * slope / path.scale(middle),
                c0=-ahead * slope,
                ch=(ahead / path.scale(here),),
                cz=up,
            )
            result = advance(state.x, middle, there, row, state.history, since=here)
            state = State(state.step + 1, result.x, x0=result.x0)
        yield state
