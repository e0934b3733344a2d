"""One figure of several reports as a line."""

from __future__ import annotations

import pytest

from mezzotint import Report, UserError
from mezzotint.testing import check_node
from mezzotint_image.chart import chart
from mezzotint_metrics.curve import curve

SCORES = [Report({"score": {"all": 90.0 - n}}) for n in range(3)]


def test_each_report_gives_a_row_at_its_number_and_a_chart_draws_them():
    got = check_node(curve, reports=SCORES, figure="score.all", at=[0.0, 0.5, 1.0], name="eta")["report"]
    assert got.data["rows"] == [{"eta": 0.0, "all": 90.0}, {"eta": 0.5, "all": 89.0}, {"eta": 1.0, "all": 88.0}]
    assert chart([got], x="eta", y="all", width=64, height=64).data.shape == (1, 64, 64, 3)


def test_rows_that_could_not_be_told_apart_or_lack_their_figure_are_refused():
    with pytest.raises(UserError, match=r"metrics.curve: 2 numbers in 'at' for 3 reports"):
        curve(SCORES, figure="score.all", at=[0.0, 1.0])
    with pytest.raises(UserError, match=r"both columns are called 'all'"):
        curve(SCORES, figure="score.all", at=[0.0, 0.5, 1.0], name="all")
    with pytest.raises(UserError, match=r"metrics.curve: the report has no figure 'fid'; it has score"):
        curve(SCORES, figure="fid", at=[0.0, 0.5, 1.0])
