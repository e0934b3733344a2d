"""Embeddings as codes: principal components that lose the least, buckets that lose at most half of one."""

from __future__ import annotations

import pytest
import torch

from mezzotint import UserError
from mezzotint_unclip.codes import Codes, Similarity


def embeddings(count=400, width=10):
    """Gaussian, its spread falling by axis and then turned."""
    turn, _ = torch.linalg.qr(torch.randn(width, width))
    return torch.randn(count, width) * 0.6 ** torch.arange(width) @ turn + torch.randn(width)


def fitted(data, components, buckets=64):
    codes = Codes(data.shape[1], components, buckets)
    codes.fit(data)
    return codes


def test_components_are_orthonormal_and_fall_in_variance():
    data = embeddings()
    codes = fitted(data, 6)
    assert torch.allclose(codes.basis @ codes.basis.T, torch.eye(6), atol=1e-5)
    spread = codes.project(data).var(0)
    assert spread.diff().lt(0).all()
    largest = torch.linalg.eigvalsh(torch.cov(data.double().T)).flip(0)[:6]
    assert torch.allclose(spread.double(), largest, rtol=1e-4)


def test_the_more_components_the_less_is_lost_and_all_of_them_lose_nothing():
    data = embeddings()
    lost = []
    for components in (2, 5, 10):
        codes = fitted(data, components)
        again = codes.project(data) @ codes.basis + codes.mean
        lost.append((again - data).square().sum().item())
    assert lost[0] > lost[1] > lost[2]
    assert lost[2] < 1e-6 * data.square().sum()


def test_a_round_trip_is_off_by_at_most_half_a_bucket():
    data = embeddings()
    codes = fitted(data, 5, buckets=16)
    error = (codes.project(codes.decode(codes.encode(data))) - codes.project(data)).abs()
    assert (error <= codes.widths / 2 * 1.001 + 1e-6).all()
    assert (error.amax(0) > codes.widths / 4).all()


def test_codes_of_codes_are_the_same_codes():
    codes = fitted(embeddings(), 5, buckets=16)
    rows = torch.randint(16, (50, 5))
    assert torch.equal(codes.encode(codes.decode(rows)), rows)


def test_what_is_out_of_bounds_falls_into_the_outermost_bucket():
    data = embeddings()
    codes = fitted(data, 3, buckets=16)
    far = codes.mean + 100 * codes.basis[0]
    assert codes.encode(far[None])[0, 0] == 15
    assert codes.encode((2 * codes.mean - far)[None])[0, 0] == 0


def test_the_same_embeddings_in_another_order_give_the_same_codes():
    data = embeddings()
    one, other = fitted(data, 5), fitted(data.flip(0), 5)
    assert torch.allclose(one.basis, other.basis, atol=1e-6)


def test_similarities_are_equally_frequent_and_rise():
    similarity = Similarity(8)
    products = torch.randn(4000) ** 3
    similarity.fit(products)
    found = similarity(products)
    assert torch.allclose(torch.bincount(found, minlength=8) / 4000, torch.full((8,), 1 / 8), atol=1e-3)
    assert (products[found >= 4].min() >= products[found < 4].max()).item()


def test_what_cannot_be_coded_is_refused():
    with pytest.raises(UserError, match="components must be 1 to 10"):
        Codes(10, 11, 4)
    with pytest.raises(UserError, match="5 components need more embeddings"):
        fitted(embeddings(5), 5)
    with pytest.raises(UserError, match="even number"):
        Similarity(3)
