"""Samplers that follow the training process backwards: DDPM, DDIM, and LCM's jumps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mezzotint_kernels import Coefficients
from mezzotint_sampling.path import quotient
from mezzotint_sampling.protocol import State

if TYPE_CHECKING:
    from mezzotint_sampling.protocol import Advance, Levels

__all__ = ["ddim", "ddpm", "lcm"]


def ddim(
    advance: Advance, levels: Levels, state: State, *, eta: Annotated[float, Field(ge=0)] = 0.0
) -> Iterator[State]:
    """x' = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s z. Source: Song et al. 2021, eq. 12 and 16.

    eta: 0 is deterministic, 1 as random as DDPM; above it no more noise than the next level has.
    """
    for here, there in pairwise(levels[state.step :]):
        s = there.sigma * min(1.0, eta * math.sqrt(1 - quotient(here, there) ** 2))
        # eps = (x - alpha x0) / sigma
        direction = math.sqrt(max(there.sigma**2 - s**2, 0.0)) / here.sigma
        row = Coefficients(cx=direction, c0=there.alpha - here.alpha * direction, cz=s)
        result = advance(state.x, here, there, row)
        state = State(state.step + 1, result.x, x0=result.x0)
        yield state


def ddpm(
    advance: Advance,
    levels: Levels,
    state: State,
    *,
    variance: Literal["small", "large", "learned"] = "small",
) -> Iterator[State]:
    """A draw from the posterior q(x' | x, x0). Source: Ho et al. 2020, eq. 7.

    alpha_step and beta_step belong to the one step between the levels, which may skip some of the
    model's own: alpha_step^2 is the quotient of the two alphas-cumprod.
    variance: small is the posterior's own (beta-tilde), large beta_step, the two bounds of Ho et
        al., section 3.2. learned: between them in the logarithm, where the model says (Nichol and
        Dhariwal 2021, eq. 15); for models that predict twice their channels.
    """
    for here, there in pairwise(levels[state.step :]):
        alpha_step = here.alpha / there.alpha
        beta_step = here.sigma**2 * (1 - quotient(here, there) ** 2)
        small = there.sigma * math.sqrt(beta_step) / here.sigma
        large = math.sqrt(beta_step) if there.sigma > 0 else 0.0
        spread = (small, large) if variance == "learned" and there.sigma > 0 else None
        row = Coefficients(
            cx=alpha_step * there.sigma**2 / here.sigma**2,
            c0=there.alpha * beta_step / here.sigma**2,
            cz={"small": small, "large": large, "learned": 1.0 if spread else 0.0}[variance],
        )
        result = advance(state.x, here, there, row, spread=spread)
        state = State(state.step + 1, result.x, x0=result.x0)
        yield state


def lcm(
    advance: Advance,
    levels: Levels,
    state: State,
    *,
    timestep_scaling: Annotated[float, Field(gt=0)] = 10.0,
) -> Iterator[State]:
    """A clean picture, noised afresh to the next level. Source: Luo et al. 2023, "LCM", alg. 3.

    The picture is c_skip x + c_out x0 with sigma_data = 0.5 and the model's time times
    `timestep_scaling`, as those models were distilled: it differs from x0 near the clean end only.
    """
    for here, there in pairwise(levels[state.step :]):
        time = here.time * timestep_scaling
        length = math.hypot(time, 0.5)
        skip, out = (0.5 / length) ** 2, time / length
        row = Coefficients(cx=there.alpha * skip, c0=there.alpha * out, cz=there.sigma)
        result = advance(state.x, here, there, row)
        state = State(state.step + 1, result.x, x0=result.x0)
        yield state
