"""One figure of several reports against a number: a line for a chart."""

from __future__ import annotations

from mezzotint import Report, UserError, node
from mezzotint_metrics.table import figure_at

__all__ = ["curve"]


@node("metrics.curve")
def curve(reports: list[Report], *, figure: str, at: list[float], name: str = "at", called: str = "") -> Report:
    """A figure of each report against the number that it was made at, as rows for image.chart.

    reports: one for each number, such as those of a flow.map.
    figure: where it lies in each of them: "fid", or "score.colour", or "rows.0.distance".
    at: one number for each report.
    name: what the number is called in the rows.
    called: what the figure is called there; without it by its last word.

    returns: "rows", [{name: at, called: figure}, ...].
    Raises: UserError: another number of values in `at`, two columns of one name, a report without its figure.
    """
    column = called or figure.rpartition(".")[2]
    if len(at) != len(reports):
        raise UserError(f"metrics.curve: {len(at)} numbers in 'at' for {len(reports)} reports")
    if column == name:
        raise UserError(f"metrics.curve: both columns are called {name!r}; give another name")
    rows = [
        {name: number, column: figure_at(report.data, figure, "metrics.curve")}
        for number, report in zip(at, reports, strict=True)
    ]
    return Report({"rows": rows})
