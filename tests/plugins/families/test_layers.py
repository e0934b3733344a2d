"""The halves that the families share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mezzotint import UserError
from mezzotint_families.layers import critic, decoder, doubled, encoder


def test_doubling_paints_no_checkerboard():
    flat = torch.randn(1, 8, 1, 1).expand(1, 8, 6, 6)
    inside = nn.Sequential(*doubled(8, 4))(flat)[:, :, 1:-1, 1:-1]
    assert inside.shape[-1] == 10
    assert (inside - inside[:, :, :1, :1]).abs().max() < 1e-6


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_the_halves_fit_each_other(size):
    pixels = decoder(size, 4, 3)(torch.randn(2, 3))
    assert pixels.shape == (2, 3, size, size)
    assert encoder(size, 4, 5)(pixels).shape == (2, 5)
    assert critic(size, 4)(pixels).shape == (2, 1)


def test_a_side_that_is_no_power_of_two_is_refused():
    with pytest.raises(UserError, match="8, 16, 32 or 64 pixels, got 24"):
        decoder(24, 4, 3)
