"""Noise with copies: neighbours of a batch have the same numbers, of every kind and at every draw."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Noise, NoiseLevel, UserError
from mezzotint_sampling.noise import numbers_of

SHAPE = (4, 3, 2, 2)
HERE, THERE = NoiseLevel(0.6, 0.8, 500.0), NoiseLevel(0.8, 0.6, 300.0, step=1)


def drawn(numbers: Any, shape: tuple[int, ...], draw: int) -> list[torch.Tensor]:
    found = [numbers.at(draw), numbers.known(draw), numbers.between(draw, HERE, THERE)]
    return [one if isinstance(one, torch.Tensor) else one.normals(shape) for one in found]


@pytest.mark.parametrize("kind", ["philox", "torch", "brownian"])
def test_copies_are_the_numbers_of_a_smaller_batch_each_several_times(kind: Any) -> None:
    copied, single = (
        numbers_of(Noise(seed=5, kind=kind, copies=2), SHAPE),
        numbers_of(Noise(seed=5, kind=kind), (2, 3, 2, 2)),
    )
    for draw in (0, 1):
        for two, one in zip(drawn(copied, SHAPE, draw), drawn(single, (2, 3, 2, 2), draw), strict=True):
            assert torch.equal(two, one[[0, 0, 1, 1]])


def test_a_batch_that_is_no_multiple_of_the_copies_is_refused() -> None:
    with pytest.raises(UserError, match="noise with 3 copies wants batches of a multiple, got 4"):
        numbers_of(Noise(seed=0, copies=3), SHAPE)
