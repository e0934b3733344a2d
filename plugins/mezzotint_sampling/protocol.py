"""What a sampler is: a generator of frozen states that computes rows of numbers, never tensors.

A sampler is called as `sampler(advance, levels, state, **options)`. For each evaluation of the
model it works out one row of `Coefficients`, calls `advance(x, here, there, row, history)`, which
evaluates the model on x at level `here` and makes the step to `there`, and yields the new `State`.
It must be able to go on from any state that it yielded. `state.step` counts evaluations; a sampler
that does not make one a step says how many it makes with `@evaluations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mezzotint_kernels import Coefficients

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import NoiseLevel
    from mezzotint_kernels import StepResult

__all__ = ["Advance", "Levels", "Sampler", "State", "evaluation_count", "evaluations", "knows", "mixed", "rising"]

Levels = Sequence["NoiseLevel"]
Sampler = Callable[..., Iterator["State"]]


@dataclass(frozen=True, eq=False)
class State:
    """Where a run is: enough to go on from here, bit for bit.

    step: evaluations done. x: the sample. history: tensors of earlier steps, newest first.
    x0: the clean picture that the last evaluation saw, for previews; not needed to go on.
    """

    step: int
    x: Tensor
    history: tuple[Tensor, ...] = ()
    x0: Tensor | None = None


class Advance(Protocol):
    """Evaluates the model on x at level `here` and makes the step that the row describes."""

    def __call__(
        self,
        x: Tensor,
        here: NoiseLevel,
        there: NoiseLevel,
        row: Coefficients,
        history: tuple[Tensor, ...] = (),
        *,
        since: NoiseLevel | None = None,
        spread: tuple[float, float] | None = None,
    ) -> StepResult:
        """One evaluation.

        since: the level from which the row's noise was gathered, `here` unless given; it matters
            to noise that is one Brownian path.
        spread: the row's noise gets a standard deviation between these two, for each element the
            one that the model predicts (learned variance).
        """
        ...

    def level(self, ratio: float, here: NoiseLevel) -> NoiseLevel:
        """The model's level of that sigma / alpha, for evaluations within the step from `here`."""
        ...


def evaluations(count: Callable[..., int]) -> Callable[[Sampler], Sampler]:
    """Says how many model evaluations a sampler makes: `count(levels, **options)`."""

    def mark(sampler: Sampler) -> Sampler:
        sampler.evaluations = count  # type: ignore[attr-defined]
        return sampler

    return mark


def evaluation_count(sampler: Sampler, levels: Levels, **options: Any) -> int:
    """How many evaluations a run along these levels takes: one a step unless the sampler says."""
    count: Callable[..., int] = getattr(sampler, "evaluations", lambda levels, **_: len(levels) - 1)
    return count(levels, **options)


def knows(*kinds: str) -> Callable[[Sampler], Sampler]:
    """Says that a sampler takes only these kinds of prediction: one whose rows use `cg`."""

    def mark(sampler: Sampler) -> Sampler:
        sampler.kinds = kinds  # type: ignore[attr-defined]
        return sampler

    return mark


def rising(sampler: Sampler) -> Sampler:
    """Says that a sampler takes levels that rise from the clean end to the noisy one."""
    sampler.rising = True  # type: ignore[attr-defined]
    return sampler


def mixed(x: Tensor, x0: Tensor, cx: float, c0: float) -> Tensor:
    """cx x + c0 x0 by the one function that does arithmetic, for the history of a state."""
    from mezzotint_kernels import noise_step

    return noise_step(x, (x0,), Coefficients(cx=cx, c0=c0)).x
