"""What samples cost, against counting by hand."""

from __future__ import annotations

import pytest
import torch

from mezzotint import UserError, Weights
from mezzotint.testing import check_node, fake_context
from mezzotint_families.building import pack_family
from mezzotint_families.cost import cost, time
from mezzotint_families.gan import Generator
from mezzotint_families.vqvae import VQVAE
from mezzotint_models import pack_network
from mezzotint_models.architecture import unet


def denoiser():
    torch.manual_seed(0)
    architecture = unet(size=8, channels=[8, 8], head_channels=8)
    return pack_network(architecture.build(), denoiser=architecture.record())


def test_a_generator_costs_its_convolutions_and_one_pass():
    found = cost(pack_family(Generator(size=8, channels=4, noise=6))).data
    # A linear layer to 4 channels of 4x4, then at 8x8: 4 to 2 channels, and 2 to the colours, by 3x3 each.
    weights = (6 + 1) * 64 + 2 * 4 + (4 * 2 * 9 + 2) + 2 * 2 + (2 * 3 * 9 + 3)
    assert found["parameters"] == weights
    assert found["passes"] == 1
    macs = 6 * 64 + 64 * (4 * 2 * 9) + 64 * (2 * 3 * 9)
    assert found["gigamacs"] == pytest.approx(macs / 1e9, abs=5e-5)


def test_codes_are_made_one_after_the_other():
    model = VQVAE(size=8, channels=4, codes=4, width=2, prior_channels=4, prior_layers=1)
    assert cost(pack_family(model)).data["passes"] == 5


def test_a_denoiser_costs_its_steps():
    once, often = (cost(denoiser(), steps=steps).data for steps in (1, 1000))
    assert often["passes"] == 1000
    assert often["gigamacs"] == pytest.approx(1000 * once["gigamacs"], abs=0.06)
    assert often["parameters"] == once["parameters"] > 0


def test_time_is_that_of_a_picture():
    assert 0 < time(fake_context(), pack_family(Generator(size=8, channels=4)), count=2).data["seconds"] < 10
    assert 0 < time(fake_context(), denoiser(), steps=2, count=2).data["seconds"] < 10


def test_weights_of_something_else_are_refused():
    with pytest.raises(UserError, match="denoiser"):
        cost(Weights(tensors={"a": torch.zeros(1)}, target="x", meta={"class": "x", "config": {}}))


def test_the_node_keeps_what_every_node_promises():
    check_node(cost, weights=pack_family(Generator(size=8, channels=4)))
