"""RealNVP: inverses, log-determinants and densities against autograd and integration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mezzotint import UserError
from mezzotint_families.dequantise import bits_per_dimension, dequantise, from_logit, to_logit
from mezzotint_families.realnvp import Coupling, RealNVP, mixed, normal_log_density, unmixed


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(module: nn.Module, scale=0.3) -> nn.Module:
    """The module in float64 with parameters that do something: it starts as the identity."""
    module = module.double()
    generator = seeded(9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def log_determinant(function, x):
    """Of autograd's Jacobian of one sample."""
    jacobian = torch.autograd.functional.jacobian(lambda v: function(v.view_as(x)).flatten(), x.flatten())
    return torch.linalg.slogdet(jacobian)[1]


@pytest.mark.parametrize("pattern", ["checkerboard", "channels"])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_coupling_has_the_log_determinant_of_its_jacobian(pattern, flipped):
    coupling = shaken(Coupling(4, 2, 6, 1, pattern, flipped))
    x = torch.randn(1, 4, 2, 2, generator=seeded(), dtype=torch.float64)
    y, change = coupling(x)
    assert change.item() == pytest.approx(log_determinant(lambda v: coupling(v)[0], x).item(), abs=1e-9)
    assert (y - x)[coupling.mask.expand_as(x) == 1].abs().max() == 0
    assert change.abs() > 1e-3


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_the_whole_flow_has_the_log_determinant_of_its_jacobian(scales):
    # Shaken harder, the Jacobian is so ill-conditioned that its determinant is less exact than the flow's sum.
    model = shaken(RealNVP(size=4, channels=3, hidden=6, scales=scales), scale=0.1)
    x = torch.rand(1, 3, 4, 4, generator=seeded(1), dtype=torch.float64)
    _, change = model(x)
    assert change.item() == pytest.approx(log_determinant(lambda v: model(v)[0], x).item(), abs=1e-10)
    assert (change - to_logit(x)[1]).abs() > 1e-2  # the couplings have their part in it


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_inverse_gives_the_picture_back(dtype, bound):
    model = shaken(RealNVP(size=8, hidden=4, scales=3), scale=0.08).to(dtype)
    x = torch.rand(4, 3, 8, 8, generator=seeded(2), dtype=dtype)
    with torch.no_grad():
        assert (model.inverse(model(x)[0]) - x).abs().max() < bound


def test_the_squeezed_channels_are_only_put_in_another_order():
    x = torch.arange(2 * 12 * 4).view(2, 12, 2, 2)
    assert torch.equal(unmixed(mixed(x)), x)
    assert not torch.equal(mixed(x), x)
    assert torch.equal(mixed(x)[0, :, 0, 0].sort().values, x[0, :, 0, 0].sort().values)


def test_the_logit_has_the_log_determinant_of_its_jacobian_and_inverts():
    x = torch.rand(1, 6, generator=seeded(3), dtype=torch.float64)
    y, change = to_logit(x)
    assert change.item() == pytest.approx(log_determinant(lambda v: to_logit(v)[0], x).item(), abs=1e-12)
    assert torch.allclose(from_logit(y), x, atol=1e-14)


def test_dequantised_levels_stay_in_their_cells():
    levels = torch.arange(256, dtype=torch.uint8).repeat(50, 1)
    x = dequantise(levels, seeded())
    assert torch.equal((x * 256).floor().to(torch.uint8), levels)
    assert (x * 256 - levels).mean() == pytest.approx(0.5, abs=0.01)


def test_uniform_levels_cost_eight_bits():
    assert bits_per_dimension(torch.zeros(1), 48).item() == 8
    # A density of 1 / 2^-8 on one level's cell: the level is certain.
    assert bits_per_dimension(torch.full((1,), 48 * 8 * math.log(2)), 48).item() == pytest.approx(0, abs=1e-5)


class Plane(nn.Module):
    """Couplings of two numbers, as two channels of one pixel."""

    def __init__(self, count=6):
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(2, 1, 16, 1, "channels", bool(i % 2)) for i in range(count))

    def log_density(self, x):
        z, total = x.view(-1, 2, 1, 1), x.new_zeros(len(x))
        for coupling in self.couplings:
            z, change = coupling(z)
            total = total + change
        return normal_log_density(z) + total


def moons(count, generator):
    angle = math.pi * torch.rand(count, generator=generator)
    lower = (torch.rand(count, generator=generator) < 0.5).float()
    x = (1 - 2 * lower) * angle.cos() + lower - 0.5
    y = (1 - 2 * lower) * angle.sin() + 0.5 * lower - 0.25
    return 1.5 * torch.stack((x, y), 1) + 0.1 * torch.randn(count, 2, generator=generator)


def test_a_density_learnt_on_two_moons_falls_below_the_normals_and_integrates_to_one():
    torch.manual_seed(0)
    model, generator = Plane(), seeded(4)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    held_out = moons(1000, seeded(5))
    before = -model.log_density(held_out).mean()
    for _ in range(150):
        loss = -model.log_density(moons(128, generator)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert -model.log_density(held_out).mean() < before - 0.5
        line = torch.linspace(-5, 5, 161)
        grid = torch.cartesian_prod(line, line)
        mass = model.log_density(grid).double().exp().sum() * (10 / 160) ** 2
    assert mass.item() == pytest.approx(1, abs=0.02)


def test_a_new_flow_is_the_identity_behind_the_logit():
    model = RealNVP(size=4, hidden=4)
    x = torch.rand(2, 3, 4, 4, generator=seeded(6))
    z, change = model(x)
    assert torch.allclose(z, to_logit(x)[0], atol=1e-6)
    assert torch.allclose(change, to_logit(x)[1], atol=1e-4)


def test_noise_between_two_pictures_leads_from_one_to_the_other():
    model = shaken(RealNVP(size=4, hidden=4), scale=0.1)
    a, b = torch.rand(2, 1, 3, 4, 4, generator=seeded(7), dtype=torch.float64)
    with torch.no_grad():
        first, last = model(a)[0], model(b)[0]
        assert torch.allclose(model.inverse(torch.lerp(first, last, 1.0)), b, atol=1e-10)
        assert torch.allclose(model.inverse(torch.lerp(first, last, 0.0)), a, atol=1e-10)


def test_a_side_that_the_scales_cannot_halve_is_refused():
    with pytest.raises(UserError, match="4 scales halve the side 3 times; 12 does not"):
        RealNVP(size=12, scales=4)
