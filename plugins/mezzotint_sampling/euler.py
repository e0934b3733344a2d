"""Euler's method, plain and ancestral."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint_sampling.path import descent, euler_row
from mezzotint_sampling.protocol import State

if TYPE_CHECKING:
    from mezzotint_sampling.protocol import Advance, Levels

__all__ = ["euler", "euler_ancestral"]


def euler(advance: Advance, levels: Levels, state: State) -> Iterator[State]:
    """Euler's method for the probability-flow ODE in x / alpha. Source: Karras et al. 2022, alg. 1.

    y' = y + (ratio' - ratio) (y - x0) / ratio with y = x / alpha. On flow levels this is the step
    x' = x + (sigma' - sigma) (eps - x0) of flow matching.
    """
    for here, there in pairwise(levels[state.step :]):
        result = advance(state.x, here, there, euler_row(here, there))
        state = State(state.step + 1, result.x, x0=result.x0)
        yield state


def euler_ancestral(
    advance: Advance, levels: Levels, state: State, *, eta: Annotated[float, Field(ge=0)] = 1.0
) -> Iterator[State]:
    """Euler's step to a lower level, and fresh noise up to the next. Source: k-diffusion.

    eta: 0 is Euler, 1 is DDPM.
    """
    for here, there in pairwise(levels[state.step :]):
        down, up = descent(here, there, eta)
        result = advance(state.x, here, there, replace(euler_row(here, down), cz=up))
        state = State(state.step + 1, result.x, x0=result.x0)
        yield state
