"""UniPC: each evaluation first corrects the step that led to it, then predicts the next one.

Only the corrected sample goes on. It is not kept: it follows from the predicted one, which the
state holds, since the predictor's step can be turned round. So the corrector and the predictor are
one row on x and up to three earlier pictures, and one evaluation makes both.
Source: Zhao et al. 2023, "UniPC", alg. 5 to 8 (data prediction).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from mezzotint_kernels import Coefficients
from mezzotint_sampling.path import log_snr
from mezzotint_sampling.protocol import State

if TYPE_CHECKING:
    from mezzotint_sampling.protocol import Advance, Levels

__all__ = ["unipc"]


class _Step(NamedTuple):
    """x' = shrink x + sum_j pictures[j] x0_j, newest picture first."""

    shrink: float
    pictures: tuple[float, ...]


def unipc(
    advance: Advance,
    levels: Levels,
    state: State,
    *,
    order: Annotated[int, Field(ge=1, le=3)] = 2,
    solver: Literal["bh1", "bh2"] = "bh2",
) -> Iterator[State]:
    """UniPC-p, which is of order p + 1 with its corrector. The order falls towards a clean end.

    order: of the predictor. solver: the papers' B(h): h, or e^h - 1.
    """
    orders = _orders(levels, order)
    for i in range(state.step, len(levels) - 1):
        here, there = levels[i], levels[i + 1]
        predictor = _step(levels, i, orders[i], solver, corrects=False)
        if i == 0:
            cx, pictures = predictor.shrink, predictor.pictures
        else:
            cx, pictures = _composed(
                predictor,
                _step(levels, i - 1, orders[i - 1], solver, corrects=True),
                _step(levels, i - 1, orders[i - 1], solver, corrects=False),
            )
        history = state.history[: len(pictures) - 1]
        row = Coefficients(cx=cx, c0=pictures[0], ch=pictures[1:])
        result = advance(state.x, here, there, row, history)
        state = State(state.step + 1, result.x, (result.x0, *state.history)[:order], result.x0)
        yield state


def _composed(predictor: _Step, corrector: _Step, last: _Step) -> tuple[float, tuple[float, ...]]:
    """One row for: undo the last prediction, correct it with the new picture, predict the next.

    The new picture is the first of the corrector's and of the predictor's; `last` has not seen it.
    """
    cx = predictor.shrink * corrector.shrink / last.shrink
    size = max(len(corrector.pictures), len(predictor.pictures), len(last.pictures) + 1)
    pictures = [0.0] * size
    for j, number in enumerate(predictor.pictures):
        pictures[j] += number
    for j, number in enumerate(corrector.pictures):
        pictures[j] += predictor.shrink * number
    for j, number in enumerate(last.pictures):
        pictures[j + 1] -= cx * number
    return cx, tuple(pictures)


def _step(levels: Levels, i: int, order: int, solver: str, *, corrects: bool) -> _Step:
    """From level i to the next by the pictures at level i and before; a corrector has the next's too."""
    here, there = levels[i], levels[i + 1]
    shrink = there.sigma / here.sigma
    h = log_snr(there) - log_snr(here) if there.sigma > 0 else math.inf
    gain = there.alpha * -math.expm1(-h)
    ratios = [(log_snr(levels[i - j]) - log_snr(here)) / h for j in range(1, order)]
    weights = _weights([*ratios, 1.0], h, solver, order if corrects else order - 1)
    # From alpha = 0 h is infinite, and only e^h - 1 has a limit.
    scale = gain if solver == "bh2" or math.isinf(h) else there.alpha * h
    # Differences (x0_j - x0) / r_j: of earlier pictures, and for a corrector of the next one.
    parts = [scale * w / r for w, r in zip(weights, [*ratios, 1.0], strict=False)]
    ahead = (parts.pop(),) if corrects else ()
    return _Step(shrink, (*ahead, gain - sum(parts) - sum(ahead), *parts))


def _weights(ratios: Sequence[float], h: float, solver: str, count: int) -> list[float]:
    """The solution of the order conditions, eq. 10 of the paper: `count` weights.

    One weight is 1/2 whatever the step is, as in the authors' code.
    """
    import numpy as np

    if count <= 1:
        return [0.5] * count
    hh = -h
    b_h = hh if solver == "bh1" else math.expm1(hh)
    phi, factorial, wanted = math.expm1(hh) / hh - 1, 1, []
    for power in range(1, count + 1):
        wanted.append(phi * factorial / b_h)
        factorial *= power + 1
        phi = phi / hh - 1 / factorial
    matrix = np.array([[r**power for r in ratios[:count]] for power in range(count)])
    return [float(w) for w in np.linalg.solve(matrix, np.array(wanted))]


def _orders(levels: Levels, order: int) -> list[int]:
    """Of each step: as many pictures as there are with a finite lambda; 1 for the last, clean step."""
    steps = len(levels) - 1
    first = 1 if levels[0].alpha > 0 else 0
    spare = 0 if levels[-1].sigma == 0 else order
    return [max(1, min(order, i + first, steps - i + spare)) for i in range(steps)]
