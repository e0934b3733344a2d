"""DDIM inversion: from a clean picture up to the noise that DDIM would make it from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint import UserError
from mezzotint_kernels import Coefficients
from mezzotint_sampling.protocol import State, evaluations, rising

if TYPE_CHECKING:
    from mezzotint_sampling.protocol import Advance, Levels

__all__ = ["ddim_inversion"]


@rising
@evaluations(lambda levels, iterations=5: iterations * (len(levels) - 1))
def ddim_inversion(
    advance: Advance,
    levels: Levels,
    state: State,
    *,
    iterations: Annotated[int, Field(ge=1, le=100)] = 5,
) -> Iterator[State]:
    """The x' from which DDIM's step leads to x, by fixed-point iteration; levels rise.

    x' = (alpha' / alpha) x + (sigma' - alpha' sigma / alpha) eps(x'), from the guess x' = x.
    iterations: evaluations for each step. 1 is the usual inversion, which takes eps at x instead
        (Song et al. 2021, section 4.3; diffusers); more come nearer to what DDIM undoes exactly
        (Pan et al. 2023, "AIDI", eq. 8).
    Within a step the state is the guess, with the step's start as history.
    Raises: UserError: the levels reach alpha = 0, where nothing of the picture is left.
    """
    if levels[-1].alpha == 0:
        raise UserError(
            "inversion cannot end in pure noise (alpha = 0), where nothing of the picture is left; "
            "leave the noisiest level out"
        )
    while state.step < iterations * (len(levels) - 1):
        i, iteration = divmod(state.step, iterations)
        low, high = levels[i], levels[i + 1]
        begun = state.history if iteration else (state.x,)
        added = (high.sigma - high.alpha * low.sigma / low.alpha) / high.sigma
        row = Coefficients(cx=added, c0=-high.alpha * added, ch=(high.alpha / low.alpha,))
        result = advance(state.x, high, high, row, begun)
        kept = begun if iteration + 1 < iterations else ()
        state = State(state.step + 1, result.x, kept, result.x0)
        yield state
