"""The vanishing gradient, as the survey tells it, and measured."""

from __future__ import annotations

import math

import pytest
import torch

from mezzotint.testing import check_node, fake_context
from mezzotint_families.vanishing import vanishing


@pytest.fixture(scope="module")
def rows():
    return vanishing(fake_context(), distances=[1.0, 3.0], steps=160).report.data["rows"]


def test_the_divergence_is_the_same_however_far_the_blobs_are(rows):
    near, far = (row["divergence"] for row in rows)
    assert near == pytest.approx(far, abs=0.03)
    assert far == pytest.approx(math.log(2), abs=0.02)
    assert max(near, far) <= math.log(2)


def test_the_wasserstein_estimate_is_the_distance(rows):
    for row in rows:
        assert row["wasserstein"] == pytest.approx(row["distance"], rel=0.25)


def test_the_saturating_gradient_vanishes_and_the_others_do_not(rows):
    far = rows[-1]
    assert far["saturating"] < 0.02 < 1 < far["non_saturating"]
    assert far["saturating"] < rows[0]["saturating"]
    assert far["wasserstein_slope"] == pytest.approx(1, abs=0.3)


def test_the_same_seed_gives_the_same_rows_and_leaves_torchs_numbers_alone():
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)
    first = vanishing(fake_context(), distances=[2.0], steps=3).report.data
    assert torch.equal(torch.randn(3), wanted)
    assert vanishing(fake_context(), distances=[2.0], steps=3).report.data == first


def test_the_node_keeps_what_every_node_promises():
    check_node(vanishing, distances=[1.0], steps=2)
