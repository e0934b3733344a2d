"""How fast each sampler's error falls: halve the step, and it must fall by 2^p."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from mezzotint import Noise, NoiseLevel, NoiseSchedule, Prediction, Sigmas
from mezzotint_kernels import normals
from mezzotint_sampling.noise import numbers_of
from mezzotint_sampling.path import Path
from mezzotint_sampling.run import levels_of, run
from mezzotint_sampling.samplers import State
from mezzotint_sampling.sigmas import karras, uniform

STABLE = NoiseSchedule()
FLOW = NoiseSchedule(kind="flow", prediction="flow")
SHAPE = (2, 8)
NUMBERS = numbers_of(Noise(seed=5), SHAPE)

# What each is of as a whole, its first steps of lower order included. 3M is of order 2, since its
# authors' code halves the last term; UniPC-2 is of order 3 with its corrector.
ORDERS: list[tuple[str, dict[str, Any], float]] = [
    ("euler", {}, 1),
    ("ddim", {}, 1),
    ("heun", {}, 2),
    ("dpm_2", {}, 2),
    ("ipndm", {}, 2),
    ("dpmpp_2s", {}, 2),
    ("dpmpp_2m", {}, 2),
    ("dpmpp_2m_sde", {"eta": 0.0, "solver": "heun"}, 2),
    ("dpmpp_3m", {}, 2),
    ("dpmpp_3m", {"exact": True}, 3),
    ("deis", {"order": 2}, 2),
    ("deis", {}, 3),
    ("unipc", {"order": 1}, 2),
    ("unipc", {}, 3),
    ("unipc", {"solver": "bh1"}, 3),
]


def without_clean_end(levels: list[Any]) -> Sigmas:
    """A last step to sigma = 0 is Euler's for most samplers, and would hide the order."""
    return Sigmas(*(tuple(column) for column in zip(*levels, strict=True)))


def start(sigmas: Sigmas) -> torch.Tensor:
    return normals(1, SHAPE, stream="start", dtype=torch.float64) * math.hypot(sigmas.alphas[0], sigmas.sigmas[0])


def error(model: Any, sampler: str, sigmas: Sigmas, **options: Any) -> float:
    levels, x = levels_of(sigmas), start(sigmas)
    got = run(sampler, model, None, x, sigmas, NUMBERS, options=options)
    return float((got - model.exact(x, levels[0], levels[-1])).abs().max())


@pytest.mark.parametrize(("sampler", "options", "order"), ORDERS)
def test_halving_the_step_divides_the_error_by_two_to_the_order(
    sampler: str, options: dict[str, Any], order: float, gaussian: Any
) -> None:
    coarse, fine = (
        error(gaussian(), sampler, without_clean_end(karras(STABLE, steps + 1)), **options) for steps in (64, 128)
    )
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25), (coarse, fine)


@pytest.mark.parametrize(
    ("sampler", "order"), [("euler", 1), ("heun", 2), ("dpm_2", 2), ("dpmpp_2s", 2), ("lms", 2)]
)
def test_the_order_holds_for_flow_models_from_pure_noise(sampler: str, order: int, gaussian: Any) -> None:
    coarse, fine = (
        error(gaussian("flow"), sampler, without_clean_end(uniform(FLOW, steps + 1, "linspace")))
        for steps in (64, 128)
    )
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25), (coarse, fine)


def exact_slope(model: Any, x: torch.Tensor, level: NoiseLevel, path: Path) -> torch.Tensor:
    x0 = model.predict(x, level, None).outputs[0]
    return (x / path.scale(level) - x0) / path.tau(level)


@pytest.mark.parametrize(("sampler", "order"), [("lms", 4), ("deis", 3), ("deis", 4), ("ipndm", 4)])
def test_from_an_exact_history_a_multistep_method_has_its_full_order(
    sampler: str, order: int, gaussian: Any
) -> None:
    """A first step is Euler's; a run that goes on from exact slopes has no such first steps."""
    errors = []
    for steps in (32, 64):
        # DEIS is for levels even in log tau, iPNDM for even ones.
        levels = karras(STABLE, steps + 1) if sampler == "deis" else uniform(FLOW, steps + 9, "linspace")[8:]
        sigmas = without_clean_end(levels)
        levels = levels_of(sigmas)
        model, path, x = gaussian("x0"), Path.of(levels), start(sigmas)
        points = [model.exact(x, levels[0], level) for level in levels[:order]]
        slopes = [exact_slope(model, p, level, path) for p, level in zip(points, levels, strict=False)]
        state = State(order - 1, points[-1], tuple(reversed(slopes[:-1])))
        got = run(sampler, model, None, x, sigmas, NUMBERS, state=state, options={"order": order})
        errors.append(float((got - model.exact(x, levels[0], levels[-1])).abs().max()))
    assert math.log2(errors[0] / errors[1]) > order - 0.3, errors


class Mixture:
    """The exact denoiser of 0.3 N(-1, 0.3^2) + 0.7 N(0.8, 0.4^2), element by element."""

    schedule = STABLE
    weights, means, stds = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.7], [-1.0, 0.8], [0.3, 0.4]))

    def x0(self, y: torch.Tensor, ratio: float) -> torch.Tensor:
        spread = self.stds**2 + ratio**2
        away = y.unsqueeze(-1) - self.means
        share = torch.softmax(torch.log(self.weights) - away**2 / (2 * spread) - spread.log() / 2, dim=-1)
        return (share * (self.means + self.stds**2 / spread * away)).sum(-1)

    def predict(self, x: torch.Tensor, level: NoiseLevel, conditioning: Any) -> Prediction:
        return Prediction((self.x0(x / level.alpha, level.sigma / level.alpha),), (1.0,), "x0")

    def exact(self, x: torch.Tensor, here: NoiseLevel, there: NoiseLevel) -> torch.Tensor:
        """dy/dratio = (y - x0) / ratio in log(ratio), by an integrator of order 8."""

        def slope(log_ratio: float, y: Any) -> Any:
            at = torch.from_numpy(y)
            return (at - self.x0(at, math.exp(log_ratio))).numpy()

        ends = [math.log(level.sigma / level.alpha) for level in (here, there)]
        first = (x / here.alpha).flatten().numpy()
        solved = solve_ivp(slope, ends, first, method="DOP853", rtol=1e-11, atol=1e-12)
        return torch.from_numpy(np.ascontiguousarray(solved.y[:, -1])).view(x.shape) * there.alpha


@pytest.mark.parametrize(
    ("sampler", "order"),
    [("euler", 1), ("heun", 2), ("dpm_2", 2), ("dpmpp_2m", 2), ("dpmpp_2s", 2), ("unipc", 3), ("deis", 3)],
)
def test_the_order_holds_where_the_data_have_two_modes(sampler: str, order: int) -> None:
    coarse, fine = (
        error(Mixture(), sampler, without_clean_end(karras(STABLE, steps + 1))) for steps in (100, 200)
    )
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35), (coarse, fine)


@pytest.mark.parametrize(("sampler", "options"), [("dpmpp_sde", {}), ("dpmpp_2m_sde", {}), ("dpmpp_3m_sde", {})])
def test_sde_samplers_draw_both_modes_in_their_shares(sampler: str, options: dict[str, Any]) -> None:
    shape = (1, 20_000)
    # dpmpp_sde is of order 1 with independent numbers for its middles.
    steps = 160 if sampler == "dpmpp_sde" else 40
    sigmas = without_clean_end([*karras(STABLE, steps), (1.0, 0.0, 0.0)])
    x = normals(0, shape, stream="start", dtype=torch.float64)
    drawn = run(sampler, Mixture(), None, x, sigmas, numbers_of(Noise(1, kind="torch"), shape), options=options)
    assert float((drawn < -0.2).double().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(drawn.mean()) == pytest.approx(0.3 * -1 + 0.7 * 0.8, abs=0.03)
    second = 0.3 * (1 + 0.09) + 0.7 * (0.64 + 0.16)
    assert float((drawn**2).mean()) == pytest.approx(second, rel=0.03)
