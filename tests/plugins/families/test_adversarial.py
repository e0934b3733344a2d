"""Adversarial losses: closed forms, the story of the vanishing gradient, and distances that do not saturate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mezzotint_families.adversarial import (
    clip_weights,
    critic_loss,
    generator_loss,
    gradient_penalty,
    real_penalty,
)
from mezzotint_families.gan import Critic, Generator


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(distance, count=128, generator=None):
    """Two narrow blobs of the plane, `distance` apart."""
    generator = generator or seeded()
    real = 0.1 * torch.randn(count, 2, generator=generator)
    fake = 0.1 * torch.randn(count, 2, generator=generator) + torch.tensor([distance, 0.0])
    return real, fake


def plane_critic():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
    )


def trained_critic(kind, distance, steps, penalty=0.0, clip=0.0):
    critic, generator = plane_critic(), seeded(1)
    if clip:
        optimiser = torch.optim.RMSprop(critic.parameters(), 5e-4)
    else:
        optimiser = torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.5, 0.9))
    largest = 0.0
    for _ in range(steps):
        real, fake = blobs(distance, generator=generator)
        loss = critic_loss(kind, critic(real), critic(fake))
        if penalty:
            loss = loss + penalty * gradient_penalty(critic, real, fake, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if clip:
            clip_weights(critic.parameters(), clip)
            largest = max(largest, *(float(p.detach().abs().max()) for p in critic.parameters()))
    return critic, largest


def test_an_ignorant_critic_has_twice_the_log_of_two():
    zeros = torch.zeros(5)
    for kind in ("saturating", "non_saturating"):
        assert critic_loss(kind, zeros, zeros).item() == pytest.approx(2 * math.log(2))
    assert critic_loss("hinge", zeros, zeros).item() == pytest.approx(1)
    assert critic_loss("wasserstein", zeros, zeros).item() == 0


def test_losses_are_the_logarithms_of_the_paper():
    real, fake = torch.randn(2, 50, generator=seeded(), dtype=torch.float64)
    value = real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()
    assert critic_loss("saturating", real, fake).item() == pytest.approx(-value.item())
    assert generator_loss("saturating", fake).item() == pytest.approx((1 - fake.sigmoid()).log().mean().item())
    assert generator_loss("non_saturating", fake).item() == pytest.approx(-fake.sigmoid().log().mean().item())


def test_the_hinge_stops_beyond_its_margin():
    real = torch.tensor([2.0, 0.5], requires_grad=True)
    fake = torch.tensor([-2.0, -0.5], requires_grad=True)
    critic_loss("hinge", real, fake).backward()
    assert real.grad.tolist() == [0, -0.25]
    assert fake.grad.tolist() == [0, 0.25]


@pytest.fixture(scope="module")
def judged():
    """A critic trained to tell blobs apart that do not touch, by distance."""
    return {distance: trained_critic("non_saturating", distance, 150)[0] for distance in (0.8, 3.0)}


def divergence(critic, distance):
    real, fake = blobs(distance, 2000, seeded(2))
    with torch.no_grad():
        return math.log(2) - critic_loss("non_saturating", critic(real), critic(fake)).item() / 2


def test_the_jensen_shannon_estimate_saturates_whatever_the_distance(judged):
    near, far = (divergence(judged[distance], distance) for distance in (0.8, 3.0))
    assert far == pytest.approx(math.log(2), abs=0.02)
    assert near == pytest.approx(far, abs=0.05)


def test_the_saturating_loss_loses_its_gradient_where_the_other_keeps_it(judged):
    _, fake = blobs(3.0)
    slopes = {}
    for kind in ("saturating", "non_saturating"):
        moved = fake.clone().requires_grad_(True)
        generator_loss(kind, judged[3.0](moved)).backward()
        slopes[kind] = moved.grad.norm(dim=1).sum().item()
    assert slopes["non_saturating"] > 0.5
    assert slopes["saturating"] < 0.01 * slopes["non_saturating"]


def test_a_wasserstein_critic_measures_the_distance():
    found = {}
    for distance in (0.5, 3.0):
        critic, _ = trained_critic("wasserstein", distance, 250, penalty=10.0)
        real, fake = blobs(distance, 2000, seeded(2))
        with torch.no_grad():
            found[distance] = -critic_loss("wasserstein", critic(real), critic(fake)).item()
        assert found[distance] == pytest.approx(distance, rel=0.2)
    assert found[3.0] / found[0.5] > 2


def test_clipped_weights_stay_within_the_bound_after_every_step():
    critic, largest = trained_critic("wasserstein", 1.0, 20, clip=0.01)
    assert 0 < largest <= 0.01 + 1e-9
    real, fake = blobs(1.0)
    assert critic(real).mean() > critic(fake).mean()


def test_the_penalty_of_a_linear_critic_is_closed_form():
    weights = torch.randn(12, generator=seeded(), dtype=torch.float64)
    real, fake = torch.randn(2, 8, 3, 2, 2, generator=seeded(1), dtype=torch.float64)
    got = gradient_penalty(lambda x: x.flatten(1) @ weights, real, fake)
    assert got.item() == pytest.approx((weights.norm().item() - 1) ** 2)


def test_the_penalty_at_the_data_is_half_the_squared_slope_and_reaches_the_weights():
    weights = torch.randn(12, generator=seeded(), dtype=torch.float64, requires_grad=True)
    real = torch.randn(8, 3, 2, 2, generator=seeded(1), dtype=torch.float64)
    got = real_penalty(lambda x: x.flatten(1) @ weights, real)
    assert got.item() == pytest.approx(weights.square().sum().item() / 2)
    got.backward()
    assert torch.allclose(weights.grad, weights)


def test_the_penalty_is_taken_at_a_place_of_its_own_for_each_sample():
    seen = []

    def critic(x):
        seen.append(x.detach().clone())
        return x.square().flatten(1).sum(1)

    gradient_penalty(critic, torch.ones(16, 2, 3), torch.zeros(16, 2, 3), seeded())
    places = seen[0].flatten(1)
    assert torch.equal(places, places[:, :1].expand_as(places))  # one for all numbers of a sample
    assert len(places[:, 0].unique()) == 16


def test_the_penalty_reaches_the_critics_weights():
    critic = Critic(size=8, channels=4)
    real, fake = torch.rand(2, 4, 3, 8, 8, generator=seeded())
    gradient_penalty(critic, real, fake, seeded()).backward()
    first = critic.network[0].weight.grad
    assert first.abs().max() > 0


def test_a_critic_judges_each_picture_by_itself():
    critic = Critic(size=16, channels=4)
    pictures = torch.rand(4, 3, 16, 16, generator=seeded())
    assert torch.allclose(critic(pictures)[1], critic(pictures[1:2])[0], atol=1e-5)


def test_a_generator_makes_pictures_in_range():
    made = Generator(size=8, channels=8, noise=4)
    pictures = made.from_noise(torch.randn(3, *made.noise_shape, generator=seeded(3)))
    assert pictures.shape == (3, 3, 8, 8)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
