"""Heun's method, once down or with restarts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from mezzotint import UserError
from mezzotint_kernels import Coefficients
from mezzotint_sampling.path import Path, euler_row, quotient, ratio_of
from mezzotint_sampling.protocol import State, evaluations

if TYPE_CHECKING:
    from mezzotint import NoiseLevel
    from mezzotint_sampling.protocol import Advance, Levels

__all__ = ["heun", "restart"]


class _Move(NamedTuple):
    """One step between two levels by index; `back`: the level that noise then takes it back to."""

    here: int
    there: int
    back: int | None = None


@evaluations(lambda levels: len(_stages(levels, _down(levels))))
def heun(advance: Advance, levels: Levels, state: State) -> Iterator[State]:
    """Euler's step, corrected with the slope at its end. Source: Karras et al. 2022, alg. 1.

    u' = u + (tau' - tau) (d + d') / 2. Between the two evaluations of a step the state is Euler's
    guess, with the sample it was made from as history.
    """
    return _walk(advance, levels, state, _down(levels))


@evaluations(lambda levels, **options: len(_stages(levels, _with_restarts(levels, **options))))
def restart(
    advance: Advance,
    levels: Levels,
    state: State,
    *,
    low: Annotated[float, Field(gt=0)] = 0.1,
    high: Annotated[float, Field(gt=0)] = 2.0,
    times: Annotated[int, Field(ge=0, le=100)] = 2,
) -> Iterator[State]:
    """Heun's method that goes back up with fresh noise, which contracts the errors made so far.

    Source: Xu et al. 2023, "Restart sampling", alg. 2, on the run's own levels.
    low, high: sigma / alpha of the interval that is repeated; the nearest levels of the run count.
    times: how often; 0 is Heun's method.
    Raises: UserError: low is not below high.
    """
    return _walk(advance, levels, state, _with_restarts(levels, low=low, high=high, times=times))


def _walk(advance: Advance, levels: Levels, state: State, moves: list[_Move]) -> Iterator[State]:
    path = Path.of(levels)
    for move, stage in _stages(levels, moves)[state.step :]:
        here, there = levels[move.here], levels[move.there]
        at, end = (here if stage == 0 else there), there
        row = euler_row(here, there) if stage == 0 else _corrected(path, here, there)
        kept = (state.x,) if stage == 0 and there.sigma > 0 else ()
        if move.back is not None and not kept:
            end = levels[move.back]
            row = _noised(row, there, end)
        result = advance(state.x, at, end, row, state.history)
        state = State(state.step + 1, result.x, kept, result.x0)
        yield state


def _corrected(path: Path, here: NoiseLevel, there: NoiseLevel) -> Coefficients:
    """From Euler's guess, its x0, and the sample before: the step with the mean of both slopes.

    The first slope follows from the guess: u + (tau' - tau) d / 2 is half way to it.
    """
    tau, tau_next = path.tau(here), path.tau(there)
    half = (tau_next - tau) / (2 * tau_next)
    ahead = path.scale(there)
    return Coefficients(cx=0.5 + half, c0=-half * ahead, ch=(0.5 * ahead / path.scale(here),))


def _noised(row: Coefficients, low: NoiseLevel, high: NoiseLevel) -> Coefficients:
    """The row to `low`, and from there along the forward process up to `high`."""
    gain = high.alpha / low.alpha
    added = high.sigma * math.sqrt(1 - quotient(high, low) ** 2)
    history = tuple(gain * c for c in row.ch)
    return replace(row, cx=gain * row.cx, c0=gain * row.c0, ch=history, cz=added)


def _down(levels: Levels) -> list[_Move]:
    return [_Move(i, i + 1) for i in range(len(levels) - 1)]


def _with_restarts(levels: Levels, low: float = 0.1, high: float = 2.0, times: int = 2) -> list[_Move]:
    if not low < high:
        raise UserError(f"sampler 'restart' repeats an interval with low below high; got {low:g} and {high:g}")
    moves = _down(levels)
    noisy = [i for i, level in enumerate(levels) if level.sigma > 0 and level.alpha > 0]
    if not noisy:
        return moves
    bottom, top = (min(noisy, key=lambda i: abs(math.log(ratio_of(levels[i]) / ratio))) for ratio in (low, high))
    if times == 0 or top >= bottom:
        return moves
    round_trip = [*moves[top : bottom - 1], _Move(bottom - 1, bottom, top)]
    return [*moves[:top], *round_trip * times, *moves[top:]]


def _stages(levels: Levels, moves: list[_Move]) -> list[tuple[_Move, int]]:
    return [(m, stage) for m in moves for stage in range(2 if levels[m.there].sigma > 0 else 1)]
