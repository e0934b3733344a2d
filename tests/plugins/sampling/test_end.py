"""Where a run ends: at no noise, or at the cleanest level of training; and sizes that are the model's own."""

from __future__ import annotations

import math

import pytest

from mezzotint import Autoencoder, Denoiser, NoiseSchedule, Source, UserError
from mezzotint_sampling.nodes import empty_latents
from mezzotint_sampling.sigmas import make_sigmas


def test_the_trained_end_is_the_first_training_step():
    schedule = NoiseSchedule()
    found = make_sigmas(schedule, 50, "discrete", "leading", end="trained")
    assert found.sigmas[-1] == pytest.approx(math.sqrt(schedule.beta_start), rel=1e-6)
    assert found.alphas[-1] == pytest.approx(math.sqrt(1 - schedule.beta_start), rel=1e-6)
    assert found.times[-2:] == (1.0, 0.0)
    clean = make_sigmas(schedule, 50, "discrete", "leading")
    assert (clean.alphas[:-1], clean.sigmas[:-1]) == (found.alphas[:-1], found.sigmas[:-1])
    assert (clean.alphas[-1], clean.sigmas[-1]) == (1.0, 0.0)


def test_a_schedule_that_is_there_already_cannot_end_there():
    with pytest.raises(UserError, match="end 'clean', or spacing 'leading'"):
        make_sigmas(NoiseSchedule(), 10, "uniform", "linspace", end="trained")


def test_a_size_that_is_not_given_is_the_denoisers():
    where = Source("here", "", "")
    denoiser = Denoiser(where, "none", sample_size=64, downscale=8)
    assert empty_latents(denoiser, width=None, height=None).data.shape == (1, 4, 64, 64)
    assert empty_latents(denoiser, width=256, height=None).data.shape == (1, 4, 64, 32)
    with pytest.raises(UserError, match="take it from the denoiser"):
        empty_latents(autoencoder=Autoencoder(where, "none"), width=None)
