"""Samplers. Each is a generator that reads like its paper, and does no arithmetic on tensors.

A sampler is called as `sampler(advance, levels, state, **options)`. For each evaluation of the
model it works out one row of `Coefficients`, calls `advance(x, here, there, row, history)`, which
evaluates the model on x at level `here` and makes the step to `there`, and yields the new `State`.
It must be able to go on from any state that it yielded. `state.step` counts evaluations; a sampler
that makes more than one a step says how many with `@evaluations`.

Symbols: x = alpha x0 + sigma eps, the papers' (alpha, sigma). k-diffusion's sigma is `ratio` here.
No sampler knows what a model predicts, and all of them can start at alpha = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from mezzotint_kernels import Coefficients

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import NoiseLevel
    from mezzotint_kernels import StepResult

    Levels = Sequence[NoiseLevel]

__all__ = [
    "SAMPLERS", "Advance", "Sampler", "State", "ddim", "ddpm", "dpmpp_2m", "euler",
    "euler_ancestral", "evaluation_count", "evaluations", "heun",
]  # fmt: skip


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
    ) -> StepResult: ...


Sampler = Callable[..., Iterator[State]]


def evaluations(count: Callable[[int], int]) -> Callable[[Sampler], Sampler]:
    """Says how many model evaluations a sampler makes for a number of steps."""

    def mark(sampler: Sampler) -> Sampler:
        sampler.evaluations = count  # type: ignore[attr-defined]
        return sampler

    return mark


def evaluation_count(sampler: Sampler, steps: int) -> int:
    """How many model evaluations `steps` steps take: one each unless the sampler has its own."""
    count: Callable[[int], int] = getattr(sampler, "evaluations", lambda n: n)
    return count(steps)


def euler(advance: Advance, levels: Levels, state: State) -> Iterator[State]:
    """Euler's method for the probability-flow ODE in x / alpha. Source: Karras et al. 2022, alg. 1.

    y' = y + (ratio' - ratio) (y - x0) / ratio with y = x / alpha.
    """
    for here, there in pairwise(levels[state.step :]):
        shrink = there.sigma / here.sigma
        row = Coefficients(cx=shrink, c0=there.alpha - here.alpha * shrink)
        result = advance(state.x, here, there, row)
        state = State(state.step + 1, result.x, x0=result.x0)
        yield state


def euler_ancestral(advance: Advance, levels: Levels, state: State, *, eta: float = 1.0) -> Iterator[State]:
    """Euler's step to a lower level, and fresh noise up to the next. Source: k-diffusion.

    up^2 = eta^2 ratio'^2 (1 - ratio'^2 / ratio^2), down^2 = ratio'^2 - up^2, in x / alpha.
    """
    for here, there in pairwise(levels[state.step :]):
        quotient = _quotient(here, there)
        up = min(1.0, eta * math.sqrt(1 - quotient**2))
        down = math.sqrt(1 - up**2)
        shrink = down * there.sigma / here.sigma
        row = Coefficients(cx=shrink, c0=there.alpha - here.alpha * shrink, cz=up * there.sigma)
        result = advance(state.x, here, there, row)
        state = State(state.step + 1, result.x, x0=result.x0)
        yield state


def ddim(advance: Advance, levels: Levels, state: State, *, eta: float = 0.0) -> Iterator[State]:
    """x' = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s z. Source: Song et al. 2021, eq. 12 and 16.

    eta: 0 is deterministic, 1 as random as DDPM.
    """
    for here, there in pairwise(levels[state.step :]):
        s = eta * there.sigma * math.sqrt(1 - _quotient(here, there) ** 2)
        # eps = (x - alpha x0) / sigma
        direction = math.sqrt(max(there.sigma**2 - s**2, 0.0)) / here.sigma
        row = Coefficients(cx=direction, c0=there.alpha - here.alpha * direction, cz=s)
        result = advance(state.x, here, there, row)
        state = State(state.step + 1, result.x, x0=result.x0)
        yield state


def ddpm(advance: Advance, levels: Levels, state: State) -> Iterator[State]:
    """A draw from the posterior q(x' | x, x0). Source: Ho et al. 2020, eq. 7 (beta-tilde).

    alpha_step and beta_step belong to the one step between the levels, which may skip some of the
    model's own: alpha_step^2 is the quotient of the two alphas-cumprod.
    """
    for here, there in pairwise(levels[state.step :]):
        alpha_step = here.alpha / there.alpha
        beta_step = here.sigma**2 - alpha_step**2 * there.sigma**2
        row = Coefficients(
            cx=alpha_step * there.sigma**2 / here.sigma**2,
            c0=there.alpha * beta_step / here.sigma**2,
            cz=there.sigma * math.sqrt(beta_step) / here.sigma,
        )
        result = advance(state.x, here, there, row)
        state = State(state.step + 1, result.x, x0=result.x0)
        yield state


@evaluations(lambda steps: 2 * steps - 1)
def heun(advance: Advance, levels: Levels, state: State) -> Iterator[State]:
    """Euler's step, corrected with the slope at its end. Source: Karras et al. 2022, alg. 1.

    In u = x / scale over tau: u' = u + (tau' - tau) (d + d') / 2 with d = (u - x0) / tau. Even
    states are proper; an odd one is Euler's guess, with the sample it was made from as history.
    """
    scales = _scales(levels)
    while state.step < 2 * len(levels) - 3:
        i = state.step // 2
        here, there = levels[i], levels[i + 1]
        if state.step % 2 == 0:
            shrink = there.sigma / here.sigma
            row = Coefficients(cx=shrink, c0=there.alpha - here.alpha * shrink)
            result = advance(state.x, here, there, row)
            kept = (state.x,) if there.sigma > 0 else ()
        else:
            tau, tau_next = here.sigma / scales[i], there.sigma / scales[i + 1]
            half = (tau_next - tau) / (2 * tau_next)
            row = Coefficients(cx=0.5 + half, c0=-half * scales[i + 1], ch=(0.5 * scales[i + 1] / scales[i],))
            result = advance(state.x, there, there, row, state.history)
            kept = ()
        state = State(state.step + 1, result.x, kept, result.x0)
        yield state


def dpmpp_2m(advance: Advance, levels: Levels, state: State) -> Iterator[State]:
    """DPM-Solver++(2M). Source: Lu et al. 2022, "DPM-Solver++", alg. 2.

    x' = (sigma' / sigma) x - alpha' (e^-h - 1) D, D = (1 + 1/(2r)) x0 - 1/(2r) x0_last, with
    h the step in log(alpha / sigma) and r = h_last / h. First order at the first and the last step.
    """
    for i in range(state.step, len(levels) - 1):
        here, there = levels[i], levels[i + 1]
        gain = there.alpha * (1 - _quotient(here, there))  # -alpha' (e^-h - 1)
        row = Coefficients(cx=there.sigma / here.sigma, c0=gain)
        history: tuple[Tensor, ...] = ()
        if i > 0 and there.sigma > 0:
            h = _log_snr(there) - _log_snr(here)
            h_last = _log_snr(here) - _log_snr(levels[i - 1])
            extra = h / (2 * h_last)
            row = Coefficients(cx=row.cx, c0=gain * (1 + extra), ch=(-gain * extra,))
            history = state.history
        result = advance(state.x, here, there, row, history)
        state = State(state.step + 1, result.x, (result.x0,), result.x0)
        yield state


SAMPLERS: Mapping[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
}


def _quotient(here: NoiseLevel, there: NoiseLevel) -> float:
    """ratio' / ratio with ratio = sigma / alpha; e^-h in DPM-Solver's words. 0 from alpha = 0."""
    return (there.sigma * here.alpha) / (there.alpha * here.sigma)


def _log_snr(level: NoiseLevel) -> float:
    """log(alpha / sigma), half the log of the signal-to-noise ratio."""
    return math.log(level.alpha / level.sigma) if level.alpha > 0 else -math.inf


def _scales(levels: Levels) -> list[float]:
    """What x is divided by so that the ODE is nearly straight: alpha, as Karras et al. do.

    For flow models, and where alpha = 0, alpha + sigma: u = (1 - tau) x0 + tau eps is finite there.
    """
    is_flow = all(math.isclose(level.alpha + level.sigma, 1, rel_tol=1e-9) for level in levels)
    if is_flow or levels[0].alpha == 0:
        return [level.alpha + level.sigma for level in levels]
    return [level.alpha for level in levels]
