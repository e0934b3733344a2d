"""Noise levels of a run: the numbers of diffusers and ComfyUI, partial runs, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from mezzotint import NoiseSchedule, Sigmas, UserError
from mezzotint_sampling.sigmas import make_sigmas

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


@pytest.mark.parametrize("schedule", [STABLE, ZERO, FLOW, NoiseSchedule(kind="cosine")])
@pytest.mark.parametrize("name", ["uniform", "discrete", "simple", "karras", "exponential"])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_levels_go_from_noisy_to_clean(schedule: NoiseSchedule, name: str, steps: int) -> None:
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
