"""Noise levels of a run: the numbers of diffusers and ComfyUI, partial runs, and refusals."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from mezzotint import NoiseSchedule, Sigmas, UserError
from mezzotint_sampling.align_your_steps import TABLES
from mezzotint_sampling.sigmas import Options, ScheduleName, make_sigmas, resolution_shift

STABLE = NoiseSchedule()
ZERO = NoiseSchedule(prediction="v", zero_terminal_snr=True)
FLOW = NoiseSchedule(kind="flow", prediction="flow")
SETTINGS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def ratios(sigmas: Sigmas) -> np.ndarray:
    return np.array(sigmas.sigmas) / np.array(sigmas.alphas)


@pytest.mark.parametrize("steps", [2, 7, 20, 30, 50, 333, 999, 1000])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_whole_times_are_those_of_diffusers_ddim(spacing: str, steps: int) -> None:
    theirs = DDIMScheduler(**SETTINGS, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    ours = make_sigmas(STABLE, steps, "discrete", spacing, offset=0)
    assert list(ours.times[:-1]) == theirs.timesteps.tolist()


@pytest.mark.parametrize("steps", [2, 7, 20, 50, 999])
def test_leading_times_move_up_by_the_offset(steps: int) -> None:
    theirs = DDIMScheduler(**SETTINGS, timestep_spacing="leading", steps_offset=1)
    theirs.set_timesteps(steps)
    ours = make_sigmas(STABLE, steps, "uniform", "leading")
    assert list(ours.times[:-1]) == theirs.timesteps.tolist()


def test_leading_times_never_leave_the_table() -> None:
    assert make_sigmas(STABLE, 1000, "uniform", "leading", offset=1).times[0] == 999
    assert make_sigmas(STABLE, 3, "uniform", "leading", offset=10**400).times[0] == 999


@pytest.mark.parametrize("steps", [2, 7, 20, 50])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_times_and_levels_are_those_of_diffusers_euler(spacing: str, steps: int) -> None:
    theirs = EulerDiscreteScheduler(**SETTINGS, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    ours = make_sigmas(STABLE, steps, "uniform", spacing, offset=0)
    np.testing.assert_allclose(ours.times[:-1], theirs.timesteps.numpy(), atol=1e-4)
    # Between training steps diffusers interpolates sigma, k-diffusion and this file its logarithm.
    tolerance = 2e-4 if spacing == "linspace" else 2e-5
    np.testing.assert_allclose(ratios(ours), theirs.sigmas.numpy(), rtol=tolerance)


@pytest.mark.parametrize("name", ["karras", "exponential"])
@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_karras_and_exponential_levels_are_those_of_diffusers(name: str, scheduler: type) -> None:
    theirs = scheduler(**SETTINGS, **{f"use_{name}_sigmas": True})
    theirs.set_timesteps(13)
    np.testing.assert_allclose(ratios(make_sigmas(STABLE, 13, name)), theirs.sigmas.numpy(), rtol=2e-5)


def test_zero_snr_starts_at_alpha_zero() -> None:
    sigmas = make_sigmas(ZERO, 10)
    assert (sigmas.alphas[0], sigmas.sigmas[0], sigmas.times[0]) == (0.0, 1.0, 999.0)


def test_karras_levels_of_a_zero_snr_model_are_finite() -> None:
    assert ratios(make_sigmas(ZERO, 10, "karras"))[0] == pytest.approx(4096)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_levels_are_those_that_pipelines_give_diffusers(shift: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / 20, 20))
    ours = make_sigmas(NoiseSchedule(kind="flow", prediction="flow", shift=shift), 20)
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=1e-6)
    np.testing.assert_allclose(ours.times[:-1], theirs.timesteps.numpy(), rtol=1e-6)


def test_simple_takes_every_nth_training_step() -> None:
    # ComfyUI: sigmas[-(1 + int(i * 1000 / 7))].
    wanted = [999 - int(i * 1000 / 7) for i in range(7)]
    assert list(make_sigmas(STABLE, 7, "simple").times[:-1]) == wanted


MODELS = (STABLE, ZERO, FLOW, NoiseSchedule(kind="cosine"))


@pytest.mark.parametrize(
    ("schedule", "name"),
    [(s, n) for s in MODELS for n in get_args(ScheduleName) if n != "align_your_steps" or s is not FLOW],
)
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_levels_go_from_noisy_to_clean(schedule: NoiseSchedule, name: Any, steps: int) -> None:
    sigmas = make_sigmas(schedule, steps, name)
    assert len(sigmas.sigmas) == len(sigmas.alphas) == len(sigmas.times) == steps + 1
    assert all(a > b for a, b in zip(sigmas.sigmas, sigmas.sigmas[1:], strict=False))
    assert (sigmas.alphas[-1], sigmas.sigmas[-1], sigmas.times[-1]) == (1.0, 0.0, 0.0)
    assert all(isinstance(number, float) for number in (*sigmas.alphas, *sigmas.times))


@pytest.mark.parametrize("name", ["uniform", "karras", "simple"])
def test_a_partial_run_is_the_end_of_a_longer_one(name: str) -> None:
    part, whole = make_sigmas(STABLE, 6, name, denoise=0.3), make_sigmas(STABLE, 20, name)
    for values, longer in (
        (part.sigmas, whole.sigmas),
        (part.alphas, whole.alphas),
        (part.times, whole.times),
    ):
        assert values == longer[-7:]


def test_a_partial_run_makes_the_steps_of_diffusers_strength() -> None:
    # StableDiffusionImg2ImgPipeline.get_timesteps(50, 0.4): the last int(50 * 0.4) of 50.
    theirs = DDIMScheduler(**SETTINGS, timestep_spacing="trailing")
    theirs.set_timesteps(50)
    ours = make_sigmas(STABLE, int(50 * 0.4), "uniform", "trailing", denoise=0.4)
    assert list(ours.times[:-1]) == theirs.timesteps[-20:].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"steps": 5, "denoise": 0.0}, "denoise must be above 0"),
        ({"steps": 5, "denoise": 1.5}, "denoise must be above 0"),
        ({"steps": 1001}, "needs 1001 whole training steps"),
        ({"steps": 500, "denoise": 0.1}, "needs 5000 whole training steps"),
        ({"steps": 1001, "name": "simple"}, "at most 1000 steps; got 1001"),
        ({"steps": 5, "name": "karas"}, "unknown schedule 'karas'; known: uniform"),
        ({"steps": 5, "spacing": "middle"}, "unknown spacing 'middle'; known: leading"),
    ],
)
def test_what_cannot_be_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_sigmas(STABLE, **arguments)


def test_sgm_uniform_leaves_out_the_cleanest() -> None:
    # ComfyUI: linspace(999, 0, steps + 1)[:-1] of the model's training steps.
    wanted = np.linspace(999, 0, 8)[:-1]
    np.testing.assert_allclose(make_sigmas(STABLE, 7, "sgm_uniform").times[:-1], wanted)


def test_comfyui_s_ddim_uniform_is_leading_with_offset_1() -> None:
    # ComfyUI: sigmas[1::1000 // steps] from the end, with 1000 divisible by steps.
    wanted = list(range(1, 1000, 50))[::-1]
    assert list(make_sigmas(STABLE, 20, "uniform", "leading", offset=1).times[:-1]) == wanted


def test_comfyui_s_normal_is_uniform_with_linspace() -> None:
    wanted = np.linspace(999, 0, 9)
    np.testing.assert_allclose(make_sigmas(STABLE, 9, "uniform", "linspace").times[:-1], wanted)


def test_beta_levels_are_quantiles_of_the_distribution() -> None:
    from scipy.stats import beta

    ours = make_sigmas(STABLE, 12, "beta", options=Options(alpha=0.6, beta=0.8))
    wanted = beta.ppf(1 - np.arange(12) / 12, 0.6, 0.8) * 999
    np.testing.assert_allclose(ours.times[:-1], wanted, rtol=1e-9)
    arcsine = make_sigmas(STABLE, 12, "beta", options=Options(alpha=0.5, beta=0.5))
    np.testing.assert_allclose(arcsine.times[:-1], np.sin(np.pi / 2 * (1 - np.arange(12) / 12)) ** 2 * 999)


@pytest.mark.parametrize("steps", [2, 9, 30])
def test_linear_quadratic_levels_are_those_of_diffusers_mochi(steps: int) -> None:
    from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

    ours = make_sigmas(FLOW, steps, "linear_quadratic")
    np.testing.assert_allclose(ours.sigmas[:-1], linear_quadratic_schedule(steps, 0.025), atol=1e-12)
    scaled = make_sigmas(STABLE, steps, "linear_quadratic")
    np.testing.assert_allclose(ratios(scaled)[:-1], 14.6146412 * np.array(ours.sigmas[:-1]), rtol=1e-6)


def test_kl_optimal_levels_are_even_in_the_angle() -> None:
    ours = ratios(make_sigmas(STABLE, 6, "kl_optimal"))[:-1]
    np.testing.assert_allclose(np.diff(np.arctan(ours)), np.diff(np.arctan(ours))[0])
    assert (ours[0], ours[-1]) == pytest.approx((14.6146412, 0.0291672), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "table", "schedule"),
    [("sd1", "StableDiffusionSigmas", STABLE), ("sdxl", "StableDiffusionXLSigmas", STABLE),
     ("svd", "StableDiffusionVideoSigmas", ZERO)],
)  # fmt: skip
def test_align_your_steps_tables_are_those_of_diffusers(name: Any, table: str, schedule: NoiseSchedule) -> None:
    from diffusers.schedulers import AysSchedules

    ours = ratios(make_sigmas(schedule, 10, "align_your_steps", options=Options(table=name)))
    np.testing.assert_allclose(ours, AysSchedules[table], rtol=1e-4)


def test_align_your_steps_of_other_lengths_are_log_linear_between() -> None:
    ours = ratios(make_sigmas(STABLE, 20, "align_your_steps"))
    np.testing.assert_allclose(ours[:-1:2], (14.6146, *TABLES["sd1"][1:-1]), rtol=1e-4)
    np.testing.assert_allclose(ours[1], np.sqrt(14.615 * 6.475), rtol=1e-4)


@pytest.mark.parametrize("rho", [1.0, 5.0])
def test_karras_has_its_range_and_exponent(rho: float) -> None:
    ours = ratios(make_sigmas(STABLE, 9, "karras", options=Options(rho=rho, sigma_min=0.1, sigma_max=10.0)))[:-1]
    ramp = np.linspace(10.0 ** (1 / rho), 0.1 ** (1 / rho), 9) ** rho
    np.testing.assert_allclose(ours, ramp, rtol=1e-9)


@pytest.mark.parametrize("steps", [7, 28])
def test_a_given_shift_replaces_the_models_own(steps: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=5.0)
    theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
    model = NoiseSchedule(kind="flow", prediction="flow", shift=3.0, train_steps=steps * 40)
    np.testing.assert_allclose(make_sigmas(model, steps, shift=5.0).sigmas, theirs.sigmas.numpy(), rtol=1e-6)


@pytest.mark.parametrize("side", [32, 64, 128])
def test_the_shift_by_size_is_that_of_fluxs_pipeline(side: int) -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / 20, 20), mu=calculate_shift(side * side // 4))
    ours = make_sigmas(FLOW, 20, shift=resolution_shift("flux", side * side, 64 * 64))
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=1e-6)


def test_the_root_of_the_size_keeps_the_signal_of_a_flat_picture() -> None:
    # Esser et al. 2024, eq. 23: sqrt(m / n) t / (1 + (sqrt(m / n) - 1) t).
    shift = resolution_shift("root", 128 * 128, 64 * 64)
    assert shift == 2.0
    ours = make_sigmas(FLOW, 4, shift=shift)
    np.testing.assert_allclose(ours.sigmas[:-1], [2 * t / (1 + t) for t in (1, 0.75, 0.5, 0.25)])


@pytest.mark.parametrize(
    ("schedule", "arguments", "message"),
    [
        (STABLE, {"shift": 3.0}, "shift belongs to flow models; the model's schedule is 'scaled_linear'"),
        (FLOW, {"shift": float("nan")}, "shift must be above 0 and finite; got nan"),
        (FLOW, {"name": "align_your_steps"}, "no table for flow models"),
        (STABLE, {"name": "align_your_steps", "options": Options(table="svd")},
         r"table 'svd' begins at sigma 700, the model's noisiest level is 14.61"),
        (STABLE, {"options": Options(sigma_min=1.0)}, "sigma_min belongs to the schedules karras"),
        (STABLE, {"name": "karras", "options": Options(sigma_min=9.0, sigma_max=2.0)},
         "sigma_min must be below sigma_max; got 9 and 2"),
        (STABLE, {"name": "karras", "options": Options(sigma_max=float("inf"))}, "finite; got inf"),
        (FLOW, {"name": "exponential", "options": Options(sigma_max=2.0)}, "at most 1; got 2"),
        (STABLE, {"name": "karras", "options": Options(rho=-1.0)}, "rho of the karras schedule .* got -1"),
        (STABLE, {"name": "beta", "options": Options(alpha=0.0)}, "must be above 0; got 0.0 and 0.6"),
        (STABLE, {"name": "linear_quadratic", "options": Options(threshold=1.5)}, "between 0 and 1; got 1.5"),
        (STABLE, {"name": "linear_quadratic", "options": Options(threshold=1 - 1e-16)}, "levels do not fall"),
        (STABLE, {"name": "karras", "options": Options(rho=1e-5)}, "levels do not fall"),
        (STABLE, {"name": "karras", "options": Options(rho=1e300)}, "levels do not fall .* in 5 steps"),
        (STABLE, {"name": "karras", "options": Options(sigma_max=1e200)}, "range of numbers: from 1e\\+200"),
        (STABLE, {"name": "exponential", "options": Options(sigma_max=1e200)}, "range of numbers: from 1e\\+200"),
        (STABLE, {"name": "karras", "denoise": 1e-9}, "the end of a run of 5000000000 .* at most 100000: use"),
    ],
)  # fmt: skip
def test_options_that_do_not_belong_are_refused(schedule: NoiseSchedule, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_sigmas(schedule, 5, **arguments)
