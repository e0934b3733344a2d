"""Adams' methods on the probability-flow ODE: a step from the slopes of this and earlier levels.

u' = u + sum_j c_j d_j with the slopes d of `Path`, newest first. The three samplers differ in the
polynomial through the slopes that the c_j integrate: LMS in tau, DEIS in log tau, iPNDM in the
number of the step. A state keeps the earlier slopes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mezzotint_kernels import Coefficients
from mezzotint_sampling.path import Path
from mezzotint_sampling.protocol import State, mixed

if TYPE_CHECKING:
    from mezzotint_sampling.protocol import Advance, Levels

    Weights = Callable[[Sequence[float], float], Sequence[float]]

__all__ = ["deis", "ipndm", "lms"]

_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def lms(
    advance: Advance, levels: Levels, state: State, *, order: Annotated[int, Field(ge=1, le=4)] = 4
) -> Iterator[State]:
    """The linear multistep method in tau. Source: k-diffusion's `sample_lms`."""

    def weights(taus: Sequence[float], end: float) -> list[float]:
        return _integrals(taus, end, logarithmic=False)

    return _adams(advance, levels, state, [min(order, i + 1) for i in range(len(levels) - 1)], weights)


def deis(
    advance: Advance, levels: Levels, state: State, *, order: Annotated[int, Field(ge=1, le=4)] = 3
) -> Iterator[State]:
    """DEIS with polynomials in log tau. Source: Zhang and Chen 2023, "Fast sampling …", eq. 16.

    The order falls towards a clean end, where the logarithm does not exist.
    """

    def weights(taus: Sequence[float], end: float) -> list[float]:
        return _integrals(taus, end, logarithmic=True)

    steps = len(levels) - 1
    spare = 0 if levels[-1].sigma == 0 else order
    return _adams(advance, levels, state, [min(order, i + 1, steps - i + spare) for i in range(steps)], weights)


def ipndm(
    advance: Advance, levels: Levels, state: State, *, order: Annotated[int, Field(ge=1, le=4)] = 4
) -> Iterator[State]:
    """Adams and Bashforth's constant weights. Source: Zhang and Chen 2023, appendix H.1 (iPNDM)."""

    def weights(taus: Sequence[float], end: float) -> list[float]:
        return [(end - taus[0]) * weight for weight in _ADAMS_BASHFORTH[len(taus) - 1]]

    return _adams(advance, levels, state, [min(order, i + 1) for i in range(len(levels) - 1)], weights)


def _adams(
    advance: Advance, levels: Levels, state: State, orders: Sequence[int], weights: Weights
) -> Iterator[State]:
    """weights: from tau of as many levels as the order, newest first, and tau of the next."""
    path = Path.of(levels)
    for i in range(state.step, len(levels) - 1):
        here, there, order = levels[i], levels[i + 1], orders[i]
        scale, ahead = path.scale(here), path.scale(there)
        taus = [path.tau(levels[i - j]) for j in range(order)]
        now, *earlier = weights(taus, path.tau(there))
        # d = (x / scale - x0) / tau
        row = Coefficients(
            cx=ahead * (1 / scale + now / here.sigma),
            c0=-ahead * now * scale / here.sigma,
            ch=tuple(ahead * weight for weight in earlier),
        )
        result = advance(state.x, here, there, row, state.history[: order - 1])
        keep = max(orders) - 1
        slope = (mixed(state.x, result.x0, 1 / here.sigma, -scale / here.sigma),) if keep else ()
        state = State(state.step + 1, result.x, (*slope, *state.history)[:keep], result.x0)
        yield state


def _integrals(taus: Sequence[float], end: float, *, logarithmic: bool) -> list[float]:
    """The integral over tau, from the first of `taus` to `end`, of each node's Lagrange polynomial.

    logarithmic: the polynomials are in log tau, and dtau is tau dlog(tau). Gauss and Legendre's
    rule with 16 points is exact for polynomials up to degree 31, and to rounding for these.
    """
    import numpy as np

    if len(taus) == 1:
        return [end - taus[0]]
    nodes = [math.log(tau) for tau in taus] if logarithmic else list(taus)
    stop = math.log(end) if logarithmic else end
    points, masses = np.polynomial.legendre.leggauss(16)
    half = (stop - nodes[0]) / 2
    places = nodes[0] + half * (points + 1)
    masses = half * masses * (np.exp(places) if logarithmic else 1.0)
    results = []
    for j, node in enumerate(nodes):
        factors = [(places - other) / (node - other) for k, other in enumerate(nodes) if k != j]
        results.append(float(masses @ np.prod(factors, axis=0)))
    return results
