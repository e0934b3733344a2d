"""Mean, covariance and count, gathered in any portions, written and read again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mezzotint import UserError
from mezzotint.testing import check_node
from mezzotint_metrics.features import Features, write_features
from mezzotint_metrics.statistics import load_statistics, statistics, write_statistics


def numbers(count, width=6, shift=0.0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + shift


@pytest.mark.parametrize("portions", [[100], [50, 50], [1, 2, 97], [99, 1]])
def test_in_any_portions_they_are_numpy_s(portions):
    rows = numbers(100)
    got = check_node(statistics, features=[Features(part) for part in rows.split(portions)])["statistics"]
    assert got.count == 100
    np.testing.assert_allclose(got.mean, rows.numpy().mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(got.covariance, np.cov(rows.numpy(), rowvar=False), atol=1e-13)


def test_a_large_mean_costs_no_digits():
    rows = numbers(200, shift=1e7)
    got = statistics([Features(part) for part in rows.split(8)])
    np.testing.assert_allclose(got.covariance, np.cov(rows.numpy(), rowvar=False), atol=1e-8)


def test_earlier_statistics_go_on():
    rows = numbers(60)
    both = statistics([Features(rows[40:], "net")], statistics([Features(rows[:40], "net")]))
    whole = statistics([Features(rows, "net")])
    assert (both.count, both.network) == (60, "net")
    torch.testing.assert_close(both.mean, whole.mean, atol=1e-14, rtol=0)
    torch.testing.assert_close(both.covariance, whole.covariance, atol=1e-13, rtol=0)


def test_they_are_written_and_read_again_to_the_bit(tmp_path):
    value = statistics([Features(numbers(30), "a network")])
    (data,) = write_statistics(value)
    assert write_statistics(value) == [data]
    (tmp_path / "real.safetensors").write_bytes(data)
    back = check_node(load_statistics, path=tmp_path / "real.safetensors")["statistics"]
    assert (back.count, back.network) == (30, "a network")
    assert torch.equal(back.mean, value.mean) and torch.equal(back.covariance, value.covariance)


def test_a_file_that_holds_none_is_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("no tensors")
    (tmp_path / "features.safetensors").write_bytes(write_features(Features(numbers(4)))[0])
    broken = statistics([Features(numbers(9))])
    broken.covariance[0, 0] = math.nan
    (tmp_path / "broken.safetensors").write_bytes(write_statistics(broken)[0])
    for name, message in (
        ("missing", "holds no statistics"),
        ("text", "holds no statistics"),
        ("features", "holds no statistics"),
        ("broken", "damaged"),
    ):
        with pytest.raises(UserError, match=message):
            load_statistics(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "at least 2 samples, got 0"),
        ([Features(numbers(1))], "at least 2 samples, got 1"),
        ([Features(numbers(4)), Features(numbers(4, 7))], "6 and 7 wide"),
        ([Features(numbers(4), "a"), Features(numbers(4), "b")], "'a' and of 'b'"),
        ([Features(numbers(4) / 0)], "4 samples are not finite"),
        ([Features(numbers(4)[0])], r"\[N, D\], got \[6\]"),
    ],
)
def test_what_has_no_statistics_is_refused(features, message):
    with pytest.raises(UserError, match=message):
        statistics(features)
