"""Samplers against what is known in closed form: exact solutions, orders, marginals, identities."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from mezzotint import Noise, NoiseSchedule, Prediction, Sigmas, UserError
from mezzotint_kernels import normals
from mezzotint_sampling.noise import numbers_of
from mezzotint_sampling.run import clean_row, levels_of, run, sampler_named
from mezzotint_sampling.samplers import SAMPLERS, State, evaluation_count
from mezzotint_sampling.sigmas import karras, make_sigmas, uniform

KINDS = ("eps", "v", "x0", "flow")
STABLE = NoiseSchedule()
FLOW = NoiseSchedule(kind="flow", prediction="flow")
ZERO = NoiseSchedule(prediction="v", zero_terminal_snr=True)
NUMBERS = numbers_of(Noise(seed=5), (2, 3, 4, 4))


def start(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return normals(1, (2, 3, 4, 4), stream="start", dtype=dtype)


def without_clean_end(levels: list[Any]) -> Sigmas:
    return Sigmas(*(tuple(column) for column in zip(*levels, strict=True)))


def global_error(predictor: Any, sampler: str, sigmas: Sigmas) -> float:
    levels = levels_of(sigmas)
    x = start() * math.hypot(levels[0].alpha, levels[0].sigma)
    got = run(sampler, predictor, None, x, sigmas, NUMBERS)
    return float((got - predictor.exact(x, levels[0], levels[-1])).abs().max())


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
@pytest.mark.parametrize("forward", ["variance_preserving", "flow"])
def test_halving_the_step_shows_the_order(sampler: str, order: int, forward: str, gaussian: Any) -> None:
    errors = []
    for steps in (64, 128, 256):
        if forward == "flow":
            levels = uniform(FLOW, steps + 1, "linspace")
        else:
            levels = karras(STABLE, steps + 1)
        model = gaussian("flow" if forward == "flow" else "eps")
        errors.append(global_error(model, sampler, without_clean_end(levels)))
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert abs(measured[-1] - order) < 0.2, (errors, measured)


@pytest.mark.parametrize("sampler", ["euler", "ddim", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("name", ["uniform", "simple", "karras", "exponential"])
def test_deterministic_samplers_reach_the_exact_solution(sampler: str, name: str, gaussian: Any) -> None:
    # What is left is the last, Euler step to the clean end.
    bound = 0.05 if sampler in ("euler", "ddim") else 0.025
    assert global_error(gaussian(), sampler, make_sigmas(STABLE, 100, name)) < bound


def test_second_order_samplers_are_closer_at_equal_cost(gaussian: Any) -> None:
    euler = global_error(gaussian(), "euler", make_sigmas(STABLE, 39, "karras"))
    assert global_error(gaussian(), "heun", make_sigmas(STABLE, 20, "karras")) < 0.5 * euler
    assert global_error(gaussian(), "dpmpp_2m", make_sigmas(STABLE, 39, "karras")) < 0.5 * euler


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("schedule", [STABLE, FLOW], ids=["variance_preserving", "flow"])
def test_every_kind_of_prediction_gives_the_same_picture(
    sampler: str, schedule: NoiseSchedule, gaussian: Any
) -> None:
    sigmas = make_sigmas(schedule, 12, "karras")
    if schedule.kind == "flow":
        # Not from pure noise, where eps says nothing.
        sigmas = Sigmas(sigmas.alphas[1:], sigmas.sigmas[1:], sigmas.times[1:])
    results = [run(sampler, gaussian(kind), None, start(), sigmas, NUMBERS) for kind in KINDS]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("schedule", [ZERO, FLOW], ids=["zero_snr", "flow"])
@pytest.mark.parametrize("kind", ["v", "x0", "flow"])
def test_runs_start_from_pure_noise(sampler: str, schedule: NoiseSchedule, kind: str, gaussian: Any) -> None:
    sigmas = make_sigmas(schedule, 200)
    assert sigmas.alphas[0] == 0
    x = start()
    got = run(sampler, gaussian(kind), None, x, sigmas, NUMBERS)
    assert torch.isfinite(got).all()
    if sampler in ("euler", "ddim", "heun", "dpmpp_2m"):
        exact = gaussian().exact(x, levels_of(sigmas)[0], levels_of(sigmas)[-1])
        assert (got - exact).abs().max() < 0.03


def test_eps_models_are_refused_at_pure_noise(gaussian: Any) -> None:
    with pytest.raises(UserError, match="predicts eps cannot be run from pure noise"):
        run("euler", gaussian("eps"), None, start(), make_sigmas(ZERO, 5), NUMBERS)


@pytest.mark.parametrize(
    ("sampler", "options"),
    [("ddpm", {}), ("euler_ancestral", {}), ("ddim", {"eta": 1.0}), ("ddim", {"eta": 0.5})],
)
@pytest.mark.parametrize("schedule", [STABLE, FLOW], ids=["variance_preserving", "flow"])
def test_stochastic_samplers_draw_from_the_data(
    sampler: str, options: dict[str, float], schedule: NoiseSchedule, gaussian: Any
) -> None:
    shape = (1, 20_000)
    sigmas = make_sigmas(schedule, 200, "karras")
    x = normals(0, shape, stream="start")
    kind = "flow" if schedule.kind == "flow" else "eps"
    numbers = numbers_of(Noise(1, kind="torch"), shape)
    drawn = run(sampler, gaussian(kind), None, x, sigmas, numbers, **options)
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.015)
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.03)


def test_euler_and_deterministic_ddim_are_one_method(gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 9)
    euler, ddim = (run(s, gaussian(), None, start(), sigmas, NUMBERS) for s in ("euler", "ddim"))
    torch.testing.assert_close(euler, ddim, rtol=0, atol=1e-12)


def test_ddpm_ancestral_euler_and_ddim_with_eta_one_are_one_method(gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 9)
    ddpm = run("ddpm", gaussian(), None, start(), sigmas, NUMBERS)
    ancestral = run("euler_ancestral", gaussian(), None, start(), sigmas, NUMBERS)
    ddim = run("ddim", gaussian(), None, start(), sigmas, NUMBERS, eta=1.0)
    torch.testing.assert_close(ancestral, ddpm, rtol=0, atol=1e-12)
    torch.testing.assert_close(ddim, ddpm, rtol=0, atol=1e-12)


def test_ancestral_euler_with_eta_zero_is_euler(gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 9, "karras")
    plain = run("euler", gaussian(), None, start(), sigmas, NUMBERS)
    ancestral = run("euler_ancestral", gaussian(), None, start(), sigmas, NUMBERS, eta=0.0)
    torch.testing.assert_close(ancestral, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_sampler_evaluates_its_model_as_often_as_it_says(sampler: str, gaussian: Any) -> None:
    model = gaussian()
    states: list[State] = []
    sigmas = make_sigmas(STABLE, 7)
    run(sampler, model, None, start(), sigmas, NUMBERS, on_state=lambda s, _: states.append(s))
    wanted = evaluation_count(SAMPLERS[sampler], 7)
    assert model.evaluations == wanted == (13 if sampler == "heun" else 7)
    assert [state.step for state in states] == list(range(1, wanted + 1))


def test_clipping_bounds_the_clean_picture(gaussian: Any) -> None:
    seen: list[torch.Tensor] = []
    model = gaussian(mean=3.0)

    def keep(state: State, total: int) -> None:
        assert state.x0 is not None
        seen.append(state.x0)

    sigmas = make_sigmas(STABLE, 7)
    got = run("ddim", model, None, start(), sigmas, NUMBERS, on_state=keep, clip=1.0)
    assert all(float(x0.abs().max()) <= 1 for x0 in seen)
    assert float(got.max()) == 1


def test_guided_outputs_reach_the_step_with_their_weights(gaussian: Any) -> None:
    class Doubled(gaussian):  # type: ignore[misc]
        def predict(self, *arguments: Any) -> Prediction:
            (output,) = super().predict(*arguments).outputs
            return Prediction((output, 0 * output), (1.0, -3.0), self.kind)

    sigmas = make_sigmas(STABLE, 5)
    one = run("euler", gaussian(), None, start(), sigmas, NUMBERS)
    assert torch.equal(run("euler", Doubled(), None, start(), sigmas, NUMBERS), one)


@pytest.mark.parametrize("kind", KINDS)
def test_the_clean_picture_follows_from_each_kind_of_prediction(kind: str, gaussian: Any) -> None:
    model, x = gaussian(kind, mean=0.0, std=1.0), start()
    for level in levels_of(make_sigmas(STABLE, 4))[:-1]:
        (output,) = model.predict(x, level, None).outputs
        ax, am = clean_row(kind, level)
        # Of unit variance: E[x0 | x] = alpha x.
        torch.testing.assert_close(ax * x + am * output, level.alpha * x, rtol=0, atol=1e-9)


def test_a_sampler_from_elsewhere_can_be_run(gaussian: Any) -> None:
    names = {"mine": SAMPLERS["euler"]}
    sigmas = make_sigmas(STABLE, 5)
    got = run(sampler_named("mine", names), gaussian(), None, start(), sigmas, NUMBERS)
    assert torch.equal(got, run("euler", gaussian(), None, start(), sigmas, NUMBERS))


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        ("dpmpp_2", {}, "unknown sampler 'dpmpp_2'; did you mean 'dpmpp_2m'?"),
        ("xyz", {}, "unknown sampler 'xyz'; known: ddim"),
        ("euler", {"eta": 1.0}, "'euler' has no option 'eta'; it has no options"),
        ("ddim", {"etta": 1.0}, "'ddim' has no option 'etta'; its options: eta"),
    ],
)
def test_wrong_names_are_named(sampler: str, options: dict[str, float], message: str, gaussian: Any) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        run(sampler, gaussian(), None, start(), make_sigmas(STABLE, 5), NUMBERS, **options)


def test_one_level_is_no_run(gaussian: Any) -> None:
    with pytest.raises(UserError, match="at least 2 levels; got 1"):
        run("euler", gaussian(), None, start(), Sigmas((1.0,), (0.0,), (0.0,)), NUMBERS)
