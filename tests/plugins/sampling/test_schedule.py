"""Noise schedules: the tables are diffusers'; index, level and ratio lead back to each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from mezzotint import NoiseSchedule, UserError
from mezzotint_sampling.schedule import (
    alphas_cumprod,
    index_of,
    level_at,
    level_of,
    ratio_range,
)

STABLE = NoiseSchedule()
COSINE = NoiseSchedule(kind="cosine")
ZERO = NoiseSchedule(zero_terminal_snr=True)
FLOW = NoiseSchedule(kind="flow", prediction="flow", shift=3.0)
DIFFUSERS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}


@pytest.mark.parametrize("kind", list(DIFFUSERS))
@pytest.mark.parametrize("zero", [False, True])
def test_tables_are_those_of_diffusers(kind: str, zero: bool) -> None:
    schedule = NoiseSchedule(kind=kind, beta_start=1e-4, beta_end=0.02, zero_terminal_snr=zero)
    theirs = DDIMScheduler(
        beta_schedule=DIFFUSERS[kind], beta_start=1e-4, beta_end=0.02, rescale_betas_zero_snr=zero
    ).alphas_cumprod.numpy()
    np.testing.assert_allclose(alphas_cumprod(schedule), theirs, rtol=2e-4, atol=2e-6)


def test_zero_terminal_snr_ends_at_exactly_zero_and_keeps_the_clean_end() -> None:
    table = alphas_cumprod(ZERO)
    assert table[-1] == 0
    assert table[0] == pytest.approx(alphas_cumprod(STABLE)[0], rel=1e-12)
    assert level_at(ZERO, 999) == (0.0, 1.0, 999)


def test_levels_of_whole_indices_are_the_table() -> None:
    for index in (0, 1, 500, 999):
        level = level_at(STABLE, index)
        assert level.alpha**2 == pytest.approx(alphas_cumprod(STABLE)[index], rel=1e-12)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1, rel=1e-12)
        assert level.time == index


def test_fractional_indices_are_log_linear_in_the_ratio() -> None:
    low, middle, high = (level_at(STABLE, i).ratio for i in (10, 10.25, 11))
    assert math.log(middle) == pytest.approx(0.75 * math.log(low) + 0.25 * math.log(high))


@pytest.mark.parametrize("schedule", [STABLE, COSINE, ZERO, FLOW])
@pytest.mark.parametrize("index", [0, 0.5, 17.3, 512, 997.9, 998])
def test_index_of_a_levels_ratio_is_its_index(schedule: NoiseSchedule, index: float) -> None:
    assert index_of(schedule, level_at(schedule, index).ratio) == pytest.approx(index, abs=1e-6)


def test_time_of_a_ratio_is_that_of_diffusers_karras_times() -> None:
    theirs = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, use_karras_sigmas=True
    )
    theirs.set_timesteps(17)
    for sigma, time in zip(theirs.sigmas[:-1].tolist(), theirs.timesteps.tolist(), strict=True):
        assert index_of(STABLE, sigma) == pytest.approx(time, abs=2e-2)


@pytest.mark.parametrize("schedule", [STABLE, ZERO, FLOW])
def test_ratios_outside_the_table_have_the_time_of_its_ends(schedule: NoiseSchedule) -> None:
    assert index_of(schedule, 1e-9) == 0
    assert index_of(schedule, 1e9) == pytest.approx(999)
    assert level_of(schedule, 1e-3).ratio == pytest.approx(1e-3)


def test_between_the_last_two_levels_of_zero_snr_alpha_falls_to_zero() -> None:
    alphas = [level_at(ZERO, i).alpha for i in (998, 998.3, 998.9, 999)]
    assert alphas == sorted(alphas, reverse=True)
    assert alphas[-1] == 0


def test_the_range_of_stable_diffusion_is_the_known_one() -> None:
    assert ratio_range(STABLE) == pytest.approx((0.0291672, 14.6146412), rel=1e-5)
    assert ratio_range(ZERO)[1] == 4096


def test_a_flow_schedule_is_a_shifted_straight_line() -> None:
    plain = NoiseSchedule(kind="flow", prediction="flow")
    assert level_at(plain, 999) == (0.0, 1.0, 1000.0)
    assert level_at(plain, 499) == (0.5, 0.5, 500.0)
    assert level_at(FLOW, 499).sigma == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


def test_a_flow_schedule_has_no_betas() -> None:
    with pytest.raises(UserError, match="'flow' has no betas"):
        alphas_cumprod(FLOW)
