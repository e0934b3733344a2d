"""Null-text optimisation: nulls with which guided DDIM follows the path of an inversion (Mokady et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mezzotint import Conditioning, NoiseLevel, UserError
from mezzotint_sampling.run import clean_row

if TYPE_CHECKING:
    from mezzotint import Predictor

__all__ = ["Optimisation", "Optimised", "Pursuit", "optimised"]


@dataclass(frozen=True)
class Optimisation:
    """How a null is sought: by Adam, anew at each step.

    scale: of guidance. updates: at most so many for each step. learning_rate: at the first step; it falls to its
    half towards the last. tolerance: mean squared error at which step i stops, times 1 + 2 i.
    """

    scale: float
    updates: int
    learning_rate: float
    tolerance: float


@dataclass(frozen=True, eq=False)
class Pursuit:
    """Where the optimisation is: enough to go on from here, bit for bit.

    step: steps done. x: the guided run's sample there, [1, C, ...]. nulls: one for each step done, [1, L, D].
    rows: the report's, one for each step done.
    """

    step: int
    x: Tensor
    nulls: tuple[Tensor, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Optimised:
    """The null of one step. before, error: mean squared distance to the path with the one before, and with it."""

    null: Tensor
    before: float
    error: float
    updates: int


def optimised(
    predictor: Predictor,
    conditioning: Conditioning,
    negative: Conditioning,
    path: Sequence[Tensor],
    levels: Sequence[NoiseLevel],
    how: Optimisation,
    state: Pursuit,
    on_update: Callable[[int, int], None],
) -> Iterator[Pursuit]:
    """A state after each step, the last one with all nulls.

    path: the inversion's latents at each level, noisiest first, one more than there are steps.
    on_update: called with the step and the number of its updates so far; may raise.
    Raises: UserError: the error is not finite.
    """
    while state.step < len(levels) - 1:
        i = state.step
        here, there = levels[i], levels[i + 1]
        start = state.nulls[-1] if state.nulls else _context(negative)
        with torch.no_grad():
            asked = predictor.predict(state.x, here, conditioning).combined()
        step = _Step(predictor, negative, state.x, here, there, asked, how.scale)
        found = _descend(step, start, path[i + 1], how, i, len(levels) - 1, on_update)
        with torch.no_grad():
            x = step(found.null)
        row = {"step": i + 1, "updates": found.updates, "before": found.before, "error": found.error}
        state = Pursuit(i + 1, x, (*state.nulls, found.null), (*state.rows, row))
        yield state


@dataclass(frozen=True, eq=False)
class _Step:
    """One guided DDIM step as a differentiable function of the null's context."""

    predictor: Predictor
    negative: Conditioning
    x: Tensor
    here: NoiseLevel
    there: NoiseLevel
    asked: Tensor
    scale: float

    def __call__(self, null: Tensor) -> Tensor:
        told = self.negative.replace(context=null.to(_context(self.negative).dtype))
        output = self.predictor.predict(self.x, self.here, told).combined()
        guided = output + self.scale * (self.asked - output)
        ax, am = clean_row(self.predictor.schedule.prediction, self.here)
        x0 = ax * self.x + am * guided
        kept = self.there.sigma / self.here.sigma
        return kept * self.x + (self.there.alpha - kept * self.here.alpha) * x0


def _descend(
    step: _Step,
    start: Tensor,
    target: Tensor,
    how: Optimisation,
    number: int,
    steps: int,
    on_update: Callable[[int, int], None],
) -> Optimised:
    """The best null that Adam meets on its way from `start`, which counts too."""
    null = start.detach().float().clone().requires_grad_()
    rate = how.learning_rate * (1 - number / (2 * steps))
    adam = torch.optim.Adam([null], lr=rate)
    enough = how.tolerance * (1 + 2 * number)
    errors: list[float] = []
    best = null.detach().clone()
    for update in range(how.updates + 1):
        difference = (step(null) - target).float().square()
        error = difference.mean().item()
        if error != error:
            raise UserError(
                f"sampling.null_text: the error of step {number + 1} is not finite; a smaller learning_rate, or a "
                "dtype of wider range, may help"
            )
        if not errors or error < min(errors):
            best = null.detach().clone()
        errors.append(error)
        on_update(number, update)
        if error < enough or update == how.updates:
            break
        adam.zero_grad()
        # Adam does not see a factor, and a sum keeps half precision from underflow.
        difference.sum().backward()  # type: ignore[no-untyped-call]
        adam.step()
    return Optimised(best, errors[0], min(errors), len(errors) - 1)


def _context(negative: Conditioning) -> Tensor:
    assert negative.context is not None
    return negative.context
