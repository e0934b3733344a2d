"""Samplers against what is known in closed form: exact solutions, orders, marginals, identities."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from mezzotint import Noise, NoiseSchedule, Prediction, Sigmas, UserError
from mezzotint_kernels import normals
from mezzotint_sampling.noise import numbers_of
from mezzotint_sampling.run import clean_row, levels_of, run, sampler_named
from mezzotint_sampling.samplers import SAMPLERS, State, evaluation_count, knows
from mezzotint_sampling.schedule import level_of
from mezzotint_sampling.sigmas import make_sigmas

KINDS = ("eps", "v", "x0", "flow")
STABLE = NoiseSchedule()
FLOW = NoiseSchedule(kind="flow", prediction="flow")
ZERO = NoiseSchedule(prediction="v", zero_terminal_snr=True)
NUMBERS = numbers_of(Noise(seed=5), (2, 3, 4, 4))


def start(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return normals(1, (2, 3, 4, 4), stream="start", dtype=dtype)


def global_error(predictor: Any, sampler: str, sigmas: Sigmas) -> float:
    levels = levels_of(sigmas)
    x = start() * math.hypot(levels[0].alpha, levels[0].sigma)
    got = run(sampler, predictor, None, x, sigmas, NUMBERS)
    return float((got - predictor.exact(x, levels[0], levels[-1])).abs().max())


# Without noise: those of the first order, and the others.
FIRST = ("euler", "ddim")
HIGHER = ("heun", "dpm_2", "lms", "deis", "ipndm", "dpmpp_2m", "dpmpp_3m", "dpmpp_2s", "unipc")


@pytest.mark.parametrize("sampler", [*FIRST, *HIGHER])
@pytest.mark.parametrize("name", ["uniform", "karras"])
def test_deterministic_samplers_reach_the_exact_solution(sampler: str, name: str, gaussian: Any) -> None:
    # What is left is the last, Euler step to the clean end.
    bound = 0.05 if sampler in FIRST else 0.025
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
    sigmas = make_sigmas(schedule, 60)
    assert sigmas.alphas[0] == 0
    x = start()
    got = run(sampler, gaussian(kind), None, x, sigmas, NUMBERS)
    assert torch.isfinite(got).all()
    if sampler in (*FIRST, *HIGHER):
        exact = gaussian().exact(x, levels_of(sigmas)[0], levels_of(sigmas)[-1])
        assert (got - exact).abs().max() < (0.1 if sampler in FIRST else 0.06)


def test_eps_models_are_refused_at_pure_noise(gaussian: Any) -> None:
    with pytest.raises(UserError, match="predicts eps cannot be run from pure noise"):
        run("euler", gaussian("eps"), None, start(), make_sigmas(ZERO, 5), NUMBERS)


STOCHASTIC: list[tuple[str, dict[str, Any]]] = [
    ("ddpm", {}),
    ("ddpm", {"variance": "large"}),
    ("ddim", {"eta": 0.5}),
    ("ddim", {"eta": 1.0}),
    ("euler_ancestral", {}),
    ("dpm_2_ancestral", {}),
    ("dpmpp_2s_ancestral", {}),
    ("dpmpp_sde", {}),
    ("dpmpp_sde", {"eta": 0.5}),
    ("dpmpp_2m_sde", {}),
    ("dpmpp_2m_sde", {"eta": 0.5, "solver": "heun"}),
    ("dpmpp_3m_sde", {}),
    ("dpmpp_3m_sde", {"exact": True}),
    ("restart", {}),
]


@pytest.mark.parametrize(("sampler", "options"), STOCHASTIC)
@pytest.mark.parametrize("schedule", [STABLE, FLOW], ids=["variance_preserving", "flow"])
def test_stochastic_samplers_draw_from_the_data(
    sampler: str, options: dict[str, Any], schedule: NoiseSchedule, gaussian: Any
) -> None:
    shape = (1, 20_000)
    # The first are of order 1; dpmpp_sde is with independent numbers for its middles.
    steps = 200 if sampler in ("ddpm", "ddim", "euler_ancestral", "dpmpp_sde") else 60
    sigmas = make_sigmas(schedule, steps, "karras")
    x = normals(0, shape, stream="start")
    kind = "flow" if schedule.kind == "flow" else "eps"
    numbers = numbers_of(Noise(1, kind="torch"), shape)
    drawn = run(sampler, gaussian(kind), None, x, sigmas, numbers, options=options)
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.015)
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(
    ("stochastic", "plain"),
    [("dpm_2_ancestral", "dpm_2"), ("dpmpp_2s_ancestral", "dpmpp_2s"), ("dpmpp_sde", "dpmpp_2s"),
     ("dpmpp_2m_sde", "dpmpp_2m"), ("dpmpp_3m_sde", "dpmpp_3m")],
)  # fmt: skip
def test_with_eta_zero_a_stochastic_sampler_is_its_plain_form(stochastic: str, plain: str, gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 9, "karras")
    mine = run(stochastic, gaussian(), None, start(), sigmas, NUMBERS, options={"eta": 0.0})
    torch.testing.assert_close(mine, run(plain, gaussian(), None, start(), sigmas, NUMBERS), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", ["lms", "deis", "ipndm"])
def test_adams_methods_of_order_one_are_euler(sampler: str, gaussian: Any) -> None:
    for schedule in (STABLE, FLOW):
        sigmas = make_sigmas(schedule, 9, "karras")
        kind = "v" if schedule is STABLE else "flow"
        mine = run(sampler, gaussian(kind), None, start(), sigmas, NUMBERS, options={"order": 1})
        plain = run("euler", gaussian(kind), None, start(), sigmas, NUMBERS)
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-12)


def test_dpmpp_sde_keeps_more_of_the_datas_spread_with_brownian_noise(gaussian: Any) -> None:
    shape = (1, 1000)
    sigmas, x = make_sigmas(STABLE, 10, "karras"), normals(0, shape, stream="start")
    independent, brownian = (
        float(run("dpmpp_sde", gaussian(), None, x, sigmas, numbers_of(Noise(1, kind=kind), shape)).std())
        for kind in ("philox", "brownian")
    )
    assert 0.5 - brownian < 0.7 * (0.5 - independent)


def test_restart_without_repetitions_is_heun_and_with_them_visits_its_interval_again(random_model: Any) -> None:
    sigmas = make_sigmas(STABLE, 20, "karras")
    heun, none = (
        run(name, random_model(), None, start(), sigmas, NUMBERS, options=options)
        for name, options in (("heun", {}), ("restart", {"times": 0}))
    )
    assert torch.equal(heun, none)
    seen: list[float] = []

    class Watching:
        def before_step(self, *, level: Any, **rest: Any) -> None:
            seen.append(level.sigma / level.alpha)

        def after_step(self, **rest: Any) -> None: ...

    run(
        "restart",
        random_model(),
        None,
        start(),
        sigmas,
        NUMBERS,
        options={"low": 0.1, "high": 2.0, "times": 3},
        hooks=Watching(),
    )
    highest = min(seen, key=lambda ratio: abs(math.log(ratio / 2)))
    assert [a < b for a, b in pairwise(seen)].count(True) == 3
    assert seen.count(highest) == 2 + 3


def test_restarting_takes_errors_out(gaussian: Any) -> None:
    """Few, coarse steps leave the spread too small; noise and another pass through the interval mend it."""
    shape = (1, 20_000)
    sigmas = make_sigmas(STABLE, 20, "karras")
    x = 1.3 * normals(0, shape, stream="start")  # as an earlier error would leave it
    numbers = numbers_of(Noise(1), shape)
    model = gaussian()
    wrong, mended = (
        float(run(name, model, None, x, sigmas, numbers, options=options).std())
        for name, options in (("heun", {}), ("restart", {"high": 2.0, "times": 2}))
    )
    assert abs(mended - 0.5) < 0.3 * abs(wrong - 0.5)


def test_lcm_jumps_to_the_clean_picture_and_noises_it_again(gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 4)
    states: list[State] = []
    run("lcm", gaussian(), None, start(), sigmas, NUMBERS, on_state=lambda s, _: states.append(s))
    level = levels_of(sigmas)[1]
    noise = normals(5, (2, 3, 4, 4), step=1, stream="sampling.noise")
    assert states[0].x0 is not None
    wanted = level.alpha * states[0].x0 + level.sigma * noise
    torch.testing.assert_close(states[0].x, wanted, rtol=0, atol=1e-6)


class TwiceChannels:
    """A Gaussian's model that also predicts where between its bounds the variance is."""

    def __init__(self, inner: Any, place: float) -> None:
        self.inner, self.place, self.schedule = inner, place, inner.schedule

    def predict(self, x: torch.Tensor, *rest: Any) -> Prediction:
        return replace(self.inner.predict(x, *rest), variance=torch.full_like(x, self.place))


@pytest.mark.parametrize(("place", "fixed"), [(-1.0, "small"), (1.0, "large")])
def test_a_learned_variance_at_its_bounds_is_the_fixed_one(place: float, fixed: str, gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 6)
    model = TwiceChannels(gaussian(), place)
    learned = run("ddpm", model, None, start(), sigmas, NUMBERS, options={"variance": "learned"})
    wanted = run("ddpm", gaussian(), None, start(), sigmas, NUMBERS, options={"variance": fixed})
    torch.testing.assert_close(learned, wanted, rtol=0, atol=1e-12)


def test_a_learned_variance_that_the_model_has_not_is_said(gaussian: Any) -> None:
    with pytest.raises(UserError, match=r"needs a model that predicts its variance.*use 'small' or 'large'"):
        run("ddpm", gaussian(), None, start(), make_sigmas(STABLE, 3), NUMBERS, options={"variance": "learned"})


def test_euler_and_deterministic_ddim_are_one_method(gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 9)
    euler, ddim = (run(s, gaussian(), None, start(), sigmas, NUMBERS) for s in ("euler", "ddim"))
    torch.testing.assert_close(euler, ddim, rtol=0, atol=1e-12)


def test_ddpm_ancestral_euler_and_ddim_with_eta_one_are_one_method(gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 9)
    ddpm = run("ddpm", gaussian(), None, start(), sigmas, NUMBERS)
    ancestral = run("euler_ancestral", gaussian(), None, start(), sigmas, NUMBERS)
    ddim = run("ddim", gaussian(), None, start(), sigmas, NUMBERS, options={"eta": 1.0})
    torch.testing.assert_close(ancestral, ddpm, rtol=0, atol=1e-12)
    torch.testing.assert_close(ddim, ddpm, rtol=0, atol=1e-12)


def test_ancestral_euler_with_eta_zero_is_euler(gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 9, "karras")
    plain = run("euler", gaussian(), None, start(), sigmas, NUMBERS)
    ancestral = run("euler_ancestral", gaussian(), None, start(), sigmas, NUMBERS, options={"eta": 0.0})
    torch.testing.assert_close(ancestral, plain, rtol=0, atol=1e-12)


TWO_STAGES = ("heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s", "dpmpp_2s_ancestral", "dpmpp_sde")
# Restart: of 7 steps 3 lie between the levels nearest to 2 and 0.1, and are made twice more.
EVALUATIONS = {**dict.fromkeys(TWO_STAGES, 13), "restart": 13 + 2 * 2 * 3}


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_sampler_evaluates_its_model_as_often_as_it_says(sampler: str, gaussian: Any) -> None:
    model = gaussian()
    states: list[State] = []
    sigmas = make_sigmas(STABLE, 7)
    run(sampler, model, None, start(), sigmas, NUMBERS, on_state=lambda s, _: states.append(s))
    wanted = evaluation_count(SAMPLERS[sampler], levels_of(sigmas))
    assert model.evaluations == wanted == EVALUATIONS.get(sampler, 7)
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
        ("eulr", {}, "unknown sampler 'eulr'; did you mean 'euler'?"),
        ("xyz", {}, "unknown sampler 'xyz'; known: ddim"),
        ("euler", {"eta": 1.0}, "'euler' has no option 'eta'; it has no options"),
        ("ddim", {"etta": 1.0}, "'ddim' has no option 'etta'; did you mean 'eta'? its options: eta"),
        ("ddim", {"eta": -1.0}, "option 'eta' of sampler 'ddim' is -1.0; wanted: input should be greater than"),
        ("ddim", {"eta": "1"}, "option 'eta' of sampler 'ddim' is '1'; wanted: input should be a valid number"),
        (
            "lms",
            {"order": 5},
            "option 'order' of sampler 'lms' is 5; wanted: input should be less than or equal to 4",
        ),
        ("ddpm", {"variance": "big"}, "is 'big'; wanted: input should be 'small', 'large' or 'learned'"),
        ("restart", {"low": 5.0}, "'restart' repeats an interval with low below high; got 5 and 2"),
    ],
)
def test_wrong_names_are_named(sampler: str, options: dict[str, float], message: str, gaussian: Any) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        run(sampler, gaussian(), None, start(), make_sigmas(STABLE, 5), NUMBERS, options=options)


@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_levels_one_rounding_apart_are_levels_like_others(sampler: str, gaussian: Any) -> None:
    found = [level_of(STABLE, ratio) for ratio in (3.0, 1.0, 1 - 1e-15, 0.3)]
    sigmas = levels(*((level.alpha, level.sigma) for level in found), (1.0, 0.0))
    assert torch.isfinite(run(sampler, gaussian(), None, start(), sigmas, NUMBERS)).all()


def test_an_eta_above_one_adds_no_more_noise_than_a_level_has(gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 10)
    states: list[State] = []
    run(
        "ddim",
        gaussian(),
        None,
        start(),
        sigmas,
        NUMBERS,
        on_state=lambda now, _: states.append(now),
        options={"eta": 50.0},
    )
    for now, alpha, sigma in zip(states, sigmas.alphas[1:], sigmas.sigmas[1:], strict=True):
        spread = (now.x - alpha * now.x0).std().item()
        assert spread == pytest.approx(sigma, rel=0.2)


def test_lcm_takes_any_scaling_of_time(gaussian: Any) -> None:
    sigmas = make_sigmas(STABLE, 3)
    torch.testing.assert_close(*(
        run("lcm", gaussian(), None, start(), sigmas, NUMBERS, options={"timestep_scaling": scaling})
        for scaling in (1e9, 1e200)
    ))  # fmt: skip


def levels(*pairs: tuple[float, float]) -> Sigmas:
    alphas, sigmas = zip(*pairs, strict=True)
    return Sigmas(alphas, sigmas, tuple(999.0 * sigma for sigma in sigmas))


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        (levels((0.6, 0.8), (0.5, 0.9), (1, 0)), r"'euler' needs sigmas that fall at every step; step 1 goes"),
        (levels((0.6, 0.8), (0.6, 0.8), (1, 0)), r"fall at every step; step 1 goes from \(alpha 0.6, sigma 0.8\)"),
        (levels((0.6, 0.8), (1, 0), (1, 0)), "fall at every step; step 2"),
        (levels((0.6, 0.8), (0, 1)), "fall at every step; step 1"),
        (levels((0.6, math.nan), (1, 0)), "noise level 0 must have a finite alpha and sigma"),
        (levels((0.6, math.inf), (1, 0)), "noise level 0 must have a finite alpha and sigma"),
        (levels((0.6, 0.8), (0.9, -0.1)), "sigma of at least 0"),
    ],
)
def test_levels_that_do_not_fall_are_refused_before_the_model_is_asked(
    sigmas: Sigmas, message: str, gaussian: Any
) -> None:
    model = gaussian()
    with pytest.raises(UserError, match=message):
        run("euler", model, None, start(), sigmas, NUMBERS)
    assert model.evaluations == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_is_not_finite_is_named_with_the_step(bad: float, gaussian: Any) -> None:
    class Bad(gaussian):  # type: ignore[misc]
        def predict(self, *arguments: Any) -> Prediction:
            prediction = super().predict(*arguments)
            if self.evaluations == 3:
                prediction.outputs[0][0, 0, 0, 0] = bad
            return prediction

    with pytest.raises(UserError, match=r"gave NaN or infinity at evaluation 3 of 5 .*time 599"):
        run("euler", Bad(), None, start(), make_sigmas(STABLE, 5), NUMBERS)


def test_a_kind_of_prediction_that_the_sampler_does_not_know_is_refused(gaussian: Any) -> None:
    @knows("eps")
    def only_eps(advance: Any, levels: Any, state: State) -> Any:
        yield from SAMPLERS["euler"](advance, levels, state)

    model = gaussian("v")
    with pytest.raises(UserError, match="'only_eps' does not know models that predict 'v'; it takes: eps"):
        run(only_eps, model, None, start(), make_sigmas(STABLE, 5), NUMBERS)
    assert model.evaluations == 0
    run(only_eps, gaussian("eps"), None, start(), make_sigmas(STABLE, 5), NUMBERS)
    model = gaussian("eps")
    model.kind = "score"
    model.predict = lambda *_: Prediction((start(),), (1.0,), "score")
    with pytest.raises(UserError, match="'euler' does not know models that predict 'score'; it takes: eps, v, x0"):
        run("euler", model, None, start(), make_sigmas(STABLE, 5), NUMBERS)


def test_one_level_is_no_run(gaussian: Any) -> None:
    with pytest.raises(UserError, match="at least 2 levels; got 1"):
        run("euler", gaussian(), None, start(), Sigmas((1.0,), (0.0,), (0.0,)), NUMBERS)


def test_a_plugins_sampler_may_call_its_options_as_it_likes(gaussian: Any) -> None:
    seen = {}

    def mine(advance: Any, levels: Any, state: State, *, clip: float = 0.0, name: str = "") -> Any:
        seen.update(clip=clip, name=name)
        yield from sampler_named("euler")(advance, levels, state)

    run(mine, gaussian(), None, start(), make_sigmas(STABLE, 3), NUMBERS, options={"clip": 2.0, "name": "x"})
    assert seen == {"clip": 2.0, "name": "x"}
