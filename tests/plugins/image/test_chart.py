"""Charts: what is drawn, and what cannot be."""

from __future__ import annotations

import pytest

from mezzotint import Report, UserError
from mezzotint_image.chart import chart, draw_chart

CURVE = Report({"steps": 3, "curve": [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.0}, {"step": 3}]})
LISTS = Report({"step": [1, 2, 3], "loss": [1.0, 0.0, float("inf")]})


def inked(image) -> int:
    return int((image.data < 0.9).any(dim=-1).sum())


def test_a_chart_has_the_size_asked_for_and_more_ink_for_more_lines():
    one = chart([CURVE], x="step", y="loss", width=300, height=200)
    assert tuple(one.data.shape) == (1, 200, 300, 3)
    two = chart([CURVE, LISTS], x="step", y="loss", labels=["a", "b"], width=300, height=200)
    assert inked(two) > inked(one) > 200


def test_equal_figures_make_equal_pictures():
    first, second = (chart([CURVE, LISTS], x="step", y="loss", title="t") for _ in range(2))
    assert first.data.equal(second.data)


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show():
    """A zero and an infinity move no axis and raise no warning."""
    zeros = draw_chart([("", [(1, 1.0), (2, 10.0), (3, 0.0), (4, float("inf"))])], x="x", y="y", y_scale="log")
    without = draw_chart([("", [(1, 1.0), (2, 10.0)])], x="x", y="y", y_scale="log")
    assert zeros.data.equal(without.data)


def test_thirty_lines_differ_in_colour_or_dashes():
    series = [(f"line {i}", [(0.0, i), (1.0, i + 1)]) for i in range(30)]
    assert inked(draw_chart(series, x="x", y="y")) > 1000


@pytest.mark.parametrize(
    ("reports", "options", "message"),
    [
        ([], {}, "at least one report"),
        ([CURVE], {"labels": ["a", "b"]}, "2 labels for 1 reports"),
        ([Report({})], {}, "it has none"),
        ([CURVE], {"y": "los"}, "no figures 'step' and 'los'; it has curve, loss, step, steps"),
    ],
)
def test_what_cannot_be_drawn_is_refused(reports, options, message):
    with pytest.raises(UserError, match=message):
        chart(reports, **{"x": "step", "y": "loss", **options})
