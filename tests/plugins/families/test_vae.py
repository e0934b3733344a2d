"""The lower bound of a variational autoencoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from mezzotint import UserError
from mezzotint_families.vae import VAE, divergence, log_likelihood, lower_bound, sample_posterior


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_divergence_is_what_monte_carlo_finds():
    mean, log_variance = torch.tensor([0.5, -1.0, 0.2]).double(), torch.tensor([0.3, -0.7, -2.0]).double()
    code = sample_posterior(mean.expand(400_000, 3), log_variance.expand(400_000, 3), seeded())
    posterior = Normal(mean, (0.5 * log_variance).exp())
    drawn = (posterior.log_prob(code) - Normal(0.0, 1.0).log_prob(code)).sum(1).mean()
    assert divergence(mean, log_variance).sum() == pytest.approx(float(drawn), abs=1e-2)


def test_the_divergence_of_the_prior_from_itself_is_zero():
    assert divergence(torch.zeros(4), torch.zeros(4)).abs().max() == 0


def test_a_sample_of_the_posterior_has_its_deviation_and_not_its_variance():
    drawn = sample_posterior(torch.zeros(200_000), torch.full((200_000,), math.log(4.0)), seeded())
    assert drawn.std() == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_likelihoods_are_those_of_torch_summed_over_pixels(likelihood):
    generator = seeded(1)
    decoded = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    pixels = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    log_deviation = torch.tensor(-0.7).double()
    if likelihood == "bernoulli":
        pixels = pixels.round()
        wanted = Bernoulli(logits=decoded).log_prob(pixels)
    else:
        wanted = Normal(decoded, log_deviation.exp()).log_prob(pixels)
    got = log_likelihood(pixels, decoded, likelihood, log_deviation)
    assert torch.allclose(got, wanted.sum((1, 2, 3)), atol=1e-10)


def linear_gaussian(noise=0.5):
    """Data W z + m + noise: W, the covariance of x, the optimal posterior's matrix and covariance."""
    loadings = torch.tensor([[1.2, 0.1], [-0.4, 0.9], [0.3, -0.8], [0.7, 0.6]]).double()
    covariance = loadings @ loadings.T + noise**2 * torch.eye(4).double()
    precision = torch.eye(2).double() + loadings.T @ loadings / noise**2
    return loadings, covariance, torch.linalg.inv(precision) @ loadings.T / noise**2, torch.linalg.inv(precision)


def bound_of(x, encode, variance, loadings, noise, draws=4000):
    """The ELBO of each x under a posterior N(encode x, diag(variance))."""
    mean = (x @ encode.T).expand(draws, -1, -1)
    log_variance = variance.log().expand_as(mean)
    code = sample_posterior(mean, log_variance, seeded())
    decoded = (code @ loadings.T).reshape(draws * len(x), 4)
    wanted = x.expand(draws, -1, -1).reshape(-1, 4)
    fit = log_likelihood(wanted, decoded, "gaussian", torch.tensor(math.log(noise)).double())
    return fit.view(draws, -1).mean(0) - divergence(mean[0], log_variance[0]).sum(1)


def test_the_bound_lies_below_the_exact_density_and_touches_it_at_the_exact_posterior():
    loadings, _, _, _ = linear_gaussian()
    # Orthogonal loadings, so that the exact posterior is diagonal, as the model's is.
    loadings = torch.linalg.qr(loadings)[0] * torch.tensor([1.5, 0.8]).double()
    noise = 0.5
    covariance = loadings @ loadings.T + noise**2 * torch.eye(4).double()
    variance = 1 / (1 + loadings.square().sum(0) / noise**2)
    encode = variance[:, None] * loadings.T / noise**2
    x = torch.randn(6, 4, generator=seeded(2), dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(4).double(), covariance).log_prob(x)
    best = bound_of(x, encode, variance, loadings, noise)
    assert (best - exact).abs().max() < 0.05
    worse = bound_of(x, 0.5 * encode, 2 * variance, loadings, noise)
    assert (worse < exact - 0.05).all()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_training_raises_the_bound_and_uses_the_code(likelihood):
    torch.manual_seed(0)
    model = VAE(size=8, channels=8, codes=4, likelihood=likelihood)
    shades = torch.rand(64, 3, 1, 1, generator=seeded(3)).expand(64, 3, 8, 8).contiguous()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    generator = seeded(4)
    before = lower_bound(model, shades, seeded(5))
    for _ in range(80):
        loss = -lower_bound(model, shades, generator).elbo.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = lower_bound(model, shades, seeded(5))
    assert after.elbo.mean() > before.elbo.mean() + 10
    assert after.divergence.mean() > 0.4  # 0.1 nat for each of the 4 numbers: the code is not ignored


def test_beta_weighs_the_divergence():
    model = VAE(size=8, channels=8, codes=4)
    pixels = torch.rand(2, 3, 8, 8)
    bound = lower_bound(model, pixels, seeded(), beta=3.0)
    assert torch.allclose(bound.elbo, bound.reconstruction - 3 * bound.divergence)


def test_a_reconstruction_is_the_same_every_time():
    model = VAE(size=16, channels=8, codes=4)
    pixels = torch.rand(2, 3, 16, 16)
    assert torch.equal(model.reconstruct(pixels), model.reconstruct(pixels))


def test_a_side_that_does_not_halve_to_four_is_refused():
    with pytest.raises(UserError, match="8, 16, 32 or 64 pixels, got 20"):
        VAE(size=20)
