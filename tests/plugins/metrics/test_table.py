"""Rows of figures and tables of them."""

from __future__ import annotations

import pytest

from mezzotint import Report, UserError
from mezzotint.testing import check_node
from mezzotint_metrics.table import row, table

ROWS = [{"all": True}, {"all": False}]
ACCURACY = Report({"accuracy": 75.0, "score": {"colour": 100.0, "shape": None}, "rows": ROWS})


def test_a_row_has_each_figure_from_its_own_report_by_its_name():
    got = check_node(
        row,
        reports=[ACCURACY, ACCURACY, ACCURACY, Report({"kid": 0.5})],
        label="glide",
        figures=["accuracy", "score.colour", "rows.-1.all", "kid"],
        names=["right", "colour", "last", "distance"],
    )["report"].data
    assert got == {"label": "glide", "right": 75.0, "colour": 100.0, "last": False, "distance": 0.5}


def test_without_names_figures_are_called_by_their_last_words():
    assert row([ACCURACY, ACCURACY], label="x", figures=["accuracy", "score.shape"]).data == {
        "label": "x",
        "accuracy": 75.0,
        "shape": None,
    }


@pytest.mark.parametrize("figure", ["accuracies", "score.size", "rows.2.all", "rows.x", "accuracy.colour"])
def test_a_figure_that_is_not_there_is_refused_with_what_is(figure):
    with pytest.raises(UserError, match=rf"no figure '{figure}'; it has accuracy, score, rows"):
        row([ACCURACY], label="x", figures=[figure])


def test_a_list_is_no_figure():
    with pytest.raises(UserError, match="'rows' is no figure, but 2 of them"):
        row([ACCURACY], label="x", figures=["rows"])


def test_two_figures_of_one_name_are_refused():
    with pytest.raises(UserError, match="two figures are called 'accuracy'"):
        row([ACCURACY, ACCURACY], label="x", figures=["accuracy", "accuracy"])
    with pytest.raises(UserError, match="two figures are called 'label'"):
        row([ACCURACY], label="x", figures=["accuracy"], names=["label"])


def test_a_figure_for_each_report_or_none_at_all():
    with pytest.raises(UserError, match="got 1 reports, 2 figures and 2 names"):
        row([ACCURACY], label="x", figures=["accuracy", "score.colour"])


def rows(*figures):
    return [Report({"label": name, "kid": figure}) for name, figure in zip("abc", figures, strict=True)]


def test_a_table_is_sorted_by_a_figure_and_what_lacks_it_is_last():
    got = check_node(table, rows=rows(None, 1.0, 2.0), sort="kid")["report"].data
    assert got["columns"] == ["label", "kid", "rank"]
    assert [(each["rank"], each["label"]) for each in got["rows"]] == [(1, "c"), (2, "b"), (3, "a")]
    got = table(rows(None, 1.0, 2.0), sort="kid", descending=False).data
    assert [each["label"] for each in got["rows"]] == ["b", "c", "a"]


def test_a_table_that_is_not_sorted_stays_in_order_and_so_do_equals():
    assert [each["label"] for each in table(rows(3.0, 1.0, 2.0)).data["rows"]] == ["a", "b", "c"]
    assert [each["label"] for each in table(rows(1.0, 1.0, 1.0), sort="kid").data["rows"]] == ["a", "b", "c"]


def test_rows_with_other_figures_are_refused():
    with pytest.raises(UserError, match="the rows differ in 'fid', 'kid'"):
        table([Report({"label": "a", "kid": 1.0}), Report({"label": "b", "fid": 1.0})])
    with pytest.raises(UserError, match="wanted at least one row"):
        table([])


def test_a_figure_that_is_not_there_or_has_no_order_is_refused():
    with pytest.raises(UserError, match="no figure 'fid' to sort by; there are label, kid"):
        table(rows(1.0, 2.0, 3.0), sort="fid")
    with pytest.raises(UserError, match="'kid' cannot be sorted by"):
        table(rows(1.0, "many", 3.0), sort="kid")
