"""Bootstrap intervals: where theory knows them, where scipy computes them, and in pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mezzotint import Report, UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_metrics.bootstrap import bootstrap


def report(values):
    return Report({"scores": [float(v) for v in values]})


VALUES = np.random.default_rng(0).normal(3, 2, 200)


def test_of_a_normal_mean_it_is_that_of_its_standard_error():
    got = check_node(bootstrap, report=report(VALUES), figure="scores", resamples=8000)["report"].data
    half = 1.96 * VALUES.std() / math.sqrt(200)
    assert got["mean"] == pytest.approx(VALUES.mean(), abs=1e-12)
    assert got["low"] == pytest.approx(VALUES.mean() - half, abs=0.08 * half)
    assert got["high"] == pytest.approx(VALUES.mean() + half, abs=0.08 * half)


@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_it_is_scipy_s_percentile_interval(confidence):
    values = np.random.default_rng(1).exponential(1.0, 40)
    ours = bootstrap(fake_context(), report(values), figure="scores", confidence=confidence, resamples=20_000).data
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=confidence, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_a_pair_of_systems_is_told_apart_where_their_own_intervals_overlap():
    hard = np.random.default_rng(2).normal(0, 10, 50)
    better = hard + 0.5 + np.random.default_rng(3).normal(0, 0.5, 50)
    alone = [bootstrap(fake_context(), report(v), figure="scores").data for v in (hard, better)]
    paired = bootstrap(fake_context(), report(better), report(hard), figure="scores").data
    assert alone[0]["high"] > alone[1]["low"]
    assert 0 < paired["low"] < 0.5 < paired["high"] + 0.3 and paired["significant"] is True
    assert paired["mean"] == pytest.approx((better - hard).mean(), abs=1e-12)


def test_a_constant_difference_is_certain_and_no_difference_is_not_significant():
    shifted = bootstrap(fake_context(), report(VALUES + 1), report(VALUES), figure="scores").data
    assert (shifted["low"], shifted["high"]) == pytest.approx((1, 1), abs=1e-12)
    same = bootstrap(fake_context(), report(VALUES), report(VALUES), figure="scores").data
    assert (same["low"], same["high"], same["significant"]) == (0, 0, False)


def test_rows_count_true_as_1_and_leave_null_out_of_both():
    one = Report({"note": "x", "rows": [{"all": True}, {"all": False}, {"all": None}, {"all": True}]})
    other = Report({"rows": [{"all": False}, {"all": False}, {"all": True}, {"all": None}]})
    assert bootstrap(fake_context(), one, figure="all").data["mean"] == pytest.approx(2 / 3)
    assert bootstrap(fake_context(), one, figure="all").data["samples"] == 3
    assert bootstrap(fake_context(), one, other, figure="all").data["mean"] == pytest.approx(0.5)


def test_portions_do_not_repeat_their_draws(monkeypatch):
    monkeypatch.setattr("mezzotint_metrics.bootstrap._NUMBERS_AT_ONCE", 200 * 10)
    got = bootstrap(fake_context(), report(VALUES), figure="scores", resamples=4005).data
    half = 1.96 * VALUES.std() / math.sqrt(200)
    assert got["high"] - got["low"] == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (Report({"x": 1}), None, "no figure 'scores'"),
        (report([1.0]), None, "at least 2 samples"),
        (Report({"scores": ["a", "b"]}), None, "must be numbers, got 'a'"),
        (report([1.0, math.nan]), None, "must be numbers, got nan"),
        (report([1, 2, 3]), report([1, 2]), "3 and 2 samples"),
    ],
)
def test_what_has_no_interval_is_refused(one, other, message):
    with pytest.raises(UserError, match=message):
        bootstrap(fake_context(), one, other, figure="scores")
