"""Levels from lists, runs taken apart and put together, and what no run can visit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from diffusers import DDIMScheduler

from mezzotint import NoiseSchedule, Sigmas, UserError
from mezzotint.testing import check_node, tiny_denoiser
from mezzotint_sampling import sigma_nodes
from mezzotint_sampling.levels import check_levels, joined, levels_from, reversed_levels, split, step_at
from mezzotint_sampling.sigmas import make_sigmas

STABLE = NoiseSchedule()
FLOW = NoiseSchedule(kind="flow", prediction="flow", shift=3.0)
RUN = make_sigmas(STABLE, 10, "karras")
NAN = float("nan")


def equal(first: Sigmas, second: Sigmas) -> bool:
    return (first.alphas, first.sigmas, first.times) == (second.alphas, second.sigmas, second.times)


def test_a_list_of_a_runs_sigmas_is_that_run() -> None:
    ratios = [s / a for s, a in zip(RUN.sigmas, RUN.alphas, strict=True)]
    found = levels_from(STABLE, ratios)
    for values, wanted in ((found.alphas, RUN.alphas), (found.sigmas, RUN.sigmas), (found.times, RUN.times)):
        np.testing.assert_allclose(values, wanted, rtol=1e-9)


def test_a_list_of_times_is_diffusers_timesteps() -> None:
    theirs = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    times = [999, 850, 736, 645, 24]
    found = levels_from(STABLE, times, "time")
    assert found.times == (*times, 0.0)
    wanted = theirs.alphas_cumprod[times].numpy() ** 0.5
    np.testing.assert_allclose(found.alphas[:-1], wanted, rtol=1e-4)


def test_flow_lists_are_its_own_sigma_and_time() -> None:
    assert levels_from(FLOW, [1.0, 0.25]).sigmas == (1.0, 0.25, 0.0)
    assert levels_from(FLOW, [1000.0, 250.0], "time").sigmas == (1.0, 0.25, 0.0)


def test_the_clean_end_is_added_once_or_not_at_all() -> None:
    assert levels_from(STABLE, [3.0, 1.0, 0.0]).sigmas[-1] == 0
    assert len(levels_from(STABLE, [3.0, 1.0, 0.0]).sigmas) == 3
    assert levels_from(STABLE, [3.0, 1.0], end=False).sigmas[-1] > 0


@pytest.mark.parametrize("step", [1, 4, 9])
def test_what_is_split_joins_to_the_whole(step: int) -> None:
    high, low = split(RUN, step)
    assert (len(high.sigmas), len(low.sigmas)) == (step + 1, 11 - step)
    assert high.sigmas[-1] == low.sigmas[0]
    assert equal(joined(high, low), RUN)


def test_a_run_is_split_at_the_first_level_at_or_below_a_sigma() -> None:
    at = step_at(RUN, 2.0)
    ratio = [RUN.sigmas[i] / RUN.alphas[i] for i in (at - 1, at)]
    assert ratio[0] > 2.0 >= ratio[1]


def test_runs_that_do_not_meet_keep_all_levels() -> None:
    found = joined(levels_from(STABLE, [9.0, 5.0], end=False), levels_from(STABLE, [2.0, 1.0]))
    assert len(found.sigmas) == 5


def test_reversed_levels_rise_and_turn_back() -> None:
    found = reversed_levels(RUN)
    check_levels(found, rising=True)
    assert (found.alphas[0], found.sigmas[0]) == (1.0, 0.0)
    assert equal(reversed_levels(found), RUN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1.0,), (0.0,), (0.0,)), "at least 2 levels, a beginning and an end; got 1"),
        (((0.5, 1.0), (0.8, 0.0), (5.0,)), "as many alphas, sigmas and times; got"),
        (((0.5, NAN, 1.0), (0.8, 0.2, 0.0), (5.0, 4.0, 0.0)), r"alphas\[1\] must be a number .* got nan"),
        (((0.5, 1.0), (-0.8, 0.0), (5.0, 0.0)), r"sigmas\[0\] must be a number of at least 0; got -0.8"),
        (((0.5, 1.0), (math.inf, 0.0), (5.0, 0.0)), r"sigmas\[0\] must be .* got inf"),
        (((0.0, 1.0), (0.0, 0.0), (5.0, 0.0)), "level 0 has neither picture nor noise"),
        (((0.5, 0.4, 1.0), (0.5, 0.8, 0.0), (5.0, 6.0, 0.0)),
         r"fall from noisy to clean; level 0 has sigma / alpha = 1, level 1 has 2"),
        (((0.5, 0.5, 1.0), (0.5, 0.5, 0.0), (5.0, 5.0, 0.0)), "must fall from noisy to clean; level 0"),
    ],
)  # fmt: skip
def test_levels_that_no_run_can_visit_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^here: .*{message}"):
        check_levels(Sigmas(*arguments), where="here")


def test_falling_levels_do_not_invert() -> None:
    with pytest.raises(UserError, match="levels must rise from clean to noisy; level 0"):
        check_levels(RUN, rising=True)


@pytest.mark.parametrize(
    ("schedule", "values", "unit", "message"),
    [
        (STABLE, [3.0, 4.0], "sigma", "values: levels must fall .* level 0 has sigma / alpha = 3, level 1 has 4"),
        (STABLE, [NAN], "sigma", r"values\[0\] must be a number of at least 0; got nan"),
        (STABLE, [3.0, -1.0], "sigma", r"values\[1\] must be a number of at least 0; got -1"),
        (STABLE, [], "sigma", "values: wanted at least 2 levels, .* got 1"),
        (STABLE, [1e200, 1.0], "sigma", r"values\[0\]: sigma is at most 1e100, .* got 1e\+200"),
        (STABLE, [1000.0], "time", r"values\[0\]: the model knows times up to 999; got 1000"),
        (FLOW, [1.5], "sigma", r"values\[0\]: sigma of a flow model is at most 1; got 1.5"),
        (FLOW, [1001.0], "time", "the model knows times up to 1000; got 1001"),
    ],
)
def test_lists_that_cannot_be_are_named(schedule: NoiseSchedule, values: Any, unit: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        levels_from(schedule, values, unit)


def test_splits_and_joints_that_cannot_be_are_named() -> None:
    with pytest.raises(UserError, match=r"run of 10 steps can be split after step 1 to 9; got 10"):
        split(RUN, 10)
    with pytest.raises(UserError, match=r"joined sigmas: levels must fall"):
        joined(RUN, RUN)
    with pytest.raises(UserError, match=r"no level lies at or below sigma 0.5; the last is"):
        step_at(split(RUN, 3)[0], 0.5)
    with pytest.raises(UserError, match=r"wanted one of step, sigma and part"):
        sigma_nodes.split_sigmas(RUN, step=2, part=0.5)


def test_the_nodes_keep_what_every_node_promises() -> None:
    made = check_node(sigma_nodes.sigmas_from_list, denoiser=tiny_denoiser(), values=[9.0, 3.0, 1.0])["sigmas"]
    parts = check_node(sigma_nodes.split_sigmas, sigmas=made, step=1)
    assert equal(check_node(sigma_nodes.join_sigmas, first=parts["high"], second=parts["low"])["sigmas"], made)
    for options in ({"sigma": 2.0}, {"part": 0.7}):
        assert equal(sigma_nodes.split_sigmas(made, **options).low, split(made, 2)[1])
