"""Targets, weights of the levels, and the bound that teaches a variance, against closed forms in float64."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler
from torch.distributions import Normal, kl_divergence

from mezzotint import NoiseSchedule, UserError
from mezzotint_sampling import noised_low_res
from mezzotint_training.learned_variance import VarianceBound, level_likelihood
from mezzotint_training.noising import Process, clean_of, eps_of, level_weights, target_of

LINEAR = {"kind": "linear", "beta_start": 1e-4, "beta_end": 0.02}


def process(**settings):
    return Process(NoiseSchedule(**{**LINEAR, **settings}))


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_a_right_answer_gives_back_picture_and_noise(kind):
    made, clean, noise = process(prediction=kind), numbers(6, 3, 2, 2), numbers(6, 3, 2, 2, seed=1)
    alpha, sigma = made.at(torch.tensor([0, 1, 100, 500, 900, 999]), clean)
    noisy = alpha * clean + sigma * noise
    target = target_of(kind, clean, noise, alpha, sigma)
    found = clean_of(kind, target, noisy, alpha, sigma)
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-9)
    torch.testing.assert_close(eps_of(noisy, found, alpha, sigma), noise, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon"])
def test_noising_and_velocity_are_diffusers(kind):
    theirs = DDPMScheduler(beta_start=1e-4, beta_end=0.02, prediction_type=kind)
    made, clean, noise = process(), numbers(4, 3, 2, 2).float(), numbers(4, 3, 2, 2, seed=1).float()
    times = torch.tensor([0, 250, 700, 999])
    alpha, sigma = made.at(times, clean)
    torch.testing.assert_close(alpha * clean + sigma * noise, theirs.add_noise(clean, noise, times))
    torch.testing.assert_close(
        target_of("v", clean, noise, alpha, sigma), theirs.get_velocity(clean, noise, times), rtol=1e-4, atol=1e-5
    )


def weights(kind, weighting, gamma):
    made = process()
    return level_weights(kind, weighting, gamma, made.alpha, made.sigma), (made.alpha / made.sigma) ** 2


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_the_papers_formula_for_every_target(gamma):
    forms = {
        "x0": lambda s: min(s, gamma),
        "eps": lambda s: min(s, gamma) / s,
        "v": lambda s: min(s, gamma) / (s + 1),
    }
    for kind, form in forms.items():
        found, snr = weights(kind, "min_snr", gamma)
        torch.testing.assert_close(found, torch.tensor([form(s) for s in snr.tolist()], dtype=torch.float64))


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_p2_weighs_eps_by_the_papers_formula_and_lets_the_cleanest_levels_count_least(gamma):
    found, snr = weights("eps", "p2", gamma)
    torch.testing.assert_close(found, 1 / (1 + snr) ** gamma)
    assert (found.diff() > 0).all() and found[0] < 0.02


@pytest.mark.parametrize("weighting", ["min_snr", "p2"])
def test_a_weighted_loss_is_the_same_number_whatever_is_predicted(weighting):
    made, clean, noise, guess = process(), numbers(5, 3), numbers(5, 3, seed=1), numbers(5, 3, seed=2)
    times = torch.tensor([3, 200, 500, 800, 990])
    alpha, sigma = made.at(times, clean)
    noisy = alpha * clean + sigma * noise
    found = []
    for kind in ("eps", "v", "x0"):
        said = target_of(kind, guess, eps_of(noisy, guess, alpha, sigma), alpha, sigma)
        error = (said - target_of(kind, clean, noise, alpha, sigma)).square().mean(1)
        found.append(error * level_weights(kind, weighting, 2.0, made.alpha[times], made.sigma[times]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=0)
    torch.testing.assert_close(found[0], found[2], rtol=1e-8, atol=0)


def test_simple_weights_are_one_and_no_weight_is_undefined_without_signal():
    made = process(prediction="v", zero_terminal_snr=True)
    assert made.alpha[-1] == 0
    for kind in ("eps", "v", "x0"):
        assert (level_weights(kind, "simple", 0.0, made.alpha, made.sigma) == 1).all()
        for weighting in ("min_snr", "p2"):
            assert level_weights(kind, weighting, 5.0, made.alpha, made.sigma).isfinite().all()


def test_flow_and_noise_without_signal_are_refused():
    with pytest.raises(UserError, match="eps, v or x0; got flow"):
        process(kind="flow", prediction="flow")
    with pytest.raises(UserError, match="take prediction v or x0"):
        process(zero_terminal_snr=True, prediction="eps")


def posterior(made, time, clean, noisy):
    """q(x_{t-1} | x_t, x_0) by Bayes: precisions add up."""
    products = made.products
    before, step = products[time - 1], products[time] / products[time - 1]
    precision = 1 / (1 - before) + step / (1 - step)
    mean = (before.sqrt() * clean / (1 - before) + step.sqrt() * noisy / (1 - step)) / precision
    return mean, precision**-0.5


@pytest.mark.parametrize("time", [1, 2, 400, 999])
def test_the_bound_is_the_divergence_of_two_gaussians(time):
    made, clean, noise, guess = (
        process(),
        numbers(3, 2, 2, 2),
        numbers(3, 2, 2, 2, seed=1),
        numbers(3, 2, 2, 2, seed=2),
    )
    said = torch.rand(3, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    times = torch.full((3,), time)
    alpha, sigma = made.at(times, clean)
    noisy = alpha * clean + sigma * noise
    true_mean, true_spread = posterior(made, time, clean, noisy)
    mean, _ = posterior(made, time, guess, noisy)
    theirs = DDPMScheduler(beta_start=1e-4, beta_end=0.02, variance_type="learned_range")
    theirs.alphas_cumprod, theirs.betas = made.products, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    theirs.alphas, theirs.one = 1 - theirs.betas, torch.tensor(1.0, dtype=torch.float64)
    spread = (theirs._get_variance(time, predicted_variance=said) / 2).exp()
    wanted = kl_divergence(Normal(true_mean, true_spread), Normal(mean, spread)).flatten(1).mean(1) / math.log(2)
    found = VarianceBound(made, pixels=True)(clean, noisy, guess, said, times)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_the_bound_teaches_the_variance_alone():
    made, clean = process(), numbers(4, 3, 2, 2)
    guess, said = numbers(4, 3, 2, 2, seed=1).requires_grad_(), torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    said.requires_grad_()
    for pixels in (True, False):
        VarianceBound(made, pixels)(clean, clean, guess, said, torch.tensor([0, 1, 500, 999])).sum().backward()
    assert guess.grad is None and (said.grad != 0).all()


def test_the_first_level_is_the_likelihood_of_a_level_which_sums_to_one_over_all():
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, log_variance in ((0.0, -4.0), (0.98, -9.0), (-1.3, 0.0)):
        one = torch.ones(256, dtype=torch.float64)
        found = level_likelihood(levels, mean * one, log_variance * one)
        assert found.exp().sum().item() == pytest.approx(1, abs=1e-6)
    made = process()
    clean = levels[[3, 100, 200]].view(3, 1, 1, 1)
    found = VarianceBound(made, pixels=True)(clean, clean, clean, torch.ones_like(clean), torch.zeros(3).long())
    # The network knows the picture: nearly all of a normal number of spread 0.01 lies within the level's 2/255.
    inside = math.erf((1 / 255) / math.sqrt(1e-4) / math.sqrt(2))
    torch.testing.assert_close(found, torch.full((3,), -math.log2(inside), dtype=torch.float64), rtol=1e-3, atol=0)


def test_the_first_level_of_latents_is_their_density():
    made, clean = process(), numbers(2, 4, 1, 1)
    found = VarianceBound(made, pixels=False)(clean, clean, clean, torch.ones_like(clean), torch.zeros(2).long())
    wanted = -Normal(0.0, math.sqrt(1e-4)).log_prob(torch.zeros(())).item() / math.log(2)
    torch.testing.assert_close(found, torch.full_like(found, wanted), rtol=1e-6, atol=0)


def test_noise_on_a_small_picture_keeps_its_variance_and_level_zero_leaves_it_exactly():
    small, noise = numbers(3, 3, 64, 64), numbers(3, 3, 64, 64, seed=1)
    found = noised_low_res(small, torch.tensor([0.0, 0.4, 1.0]), noise)
    assert torch.equal(found[0], small[0])
    assert found[1].var().item() == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(found[2], noise[2], rtol=0, atol=1e-6)
