"""Figures of several reports side by side: a row for each system, and the rows as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mezzotint import Report, UserError, node

__all__ = ["figure_at", "row", "table"]


@node("metrics.row")
def row(reports: list[Report], *, label: str, figures: list[str], names: list[str] | None = None) -> Report:
    """Some figures of some reports as one flat report: a system's row in metrics.table.

    reports: one for each figure; the same one may come several times.
    label: whose they are.
    figures: where each lies in its report: "fid", or "score.colour", or "rows.0.distance".
    names: what they are called in the row; without it by their last words.

    returns: "label", and each figure by its name.
    Raises: UserError: another number of figures or names, two of one name, a report without its figure.
    """
    called = list(names) if names is not None else [figure.rpartition(".")[2] for figure in figures]
    if not len(reports) == len(figures) == len(called):
        raise UserError(
            f"metrics.row: wanted a figure and a name for each report, got {len(reports)} reports, {len(figures)} "
            f"figures and {len(called)} names"
        )
    twice = [name for name in {**dict.fromkeys(called)} if [*called, "label"].count(name) > 1]
    if twice:
        raise UserError(f"metrics.row: two figures are called {twice[0]!r}; give names")
    found = {"label": label}
    for report, figure, name in zip(reports, figures, called, strict=True):
        found[name] = figure_at(report.data, figure, "metrics.row")
    return Report(found)


@node("metrics.table")
def table(rows: list[Report], *, sort: str = "", descending: bool = True) -> Report:
    """Rows by metrics.row as one table, which image.chart draws.

    rows: of one kind: all with the same figures.
    sort: the figure to sort by; without it they stay in order. A row without it (null) comes last.
    descending: the largest first.

    returns: "columns", and "rows" with the rank of each, from 1, under "rank".
    Raises: UserError: no row, rows with other figures, no such figure, one that cannot be sorted by.
    """
    if not rows:
        raise UserError("metrics.table: wanted at least one row, got none")
    columns = list(rows[0].data)
    for each in rows:
        if set(each.data) != set(columns):
            odd = sorted(set(each.data) ^ set(columns))
            raise UserError(
                f"metrics.table: the rows differ in {', '.join(map(repr, odd))}; wanted the same figures"
            )
    found = [dict(each.data) for each in rows]
    if sort:
        if sort not in columns:
            raise UserError(f"metrics.table: no figure {sort!r} to sort by; there are {', '.join(columns)}")
        known = [each for each in found if each[sort] is not None]
        try:
            known.sort(key=lambda each: each[sort], reverse=descending)
        except TypeError as error:
            raise UserError(f"metrics.table: {sort!r} cannot be sorted by: {error}") from error
        found = [*known, *(each for each in found if each[sort] is None)]
    ranked = [{**each, "rank": rank} for rank, each in enumerate(found, 1)]
    return Report({"columns": [*(name for name in columns if name != "rank"), "rank"], "rows": ranked})


def figure_at(data: Mapping[str, Any], path: str, where: str) -> Any:
    """The figure at a path such as "rows.0.distance". Raises: UserError: there is none, or it is several."""
    found: Any = data
    for key in path.split("."):
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, Sequence) and not isinstance(found, str) and _index(key, len(found)) is not None:
            found = found[int(key)]
        else:
            raise UserError(f"{where}: the report has no figure {path!r}; it has {', '.join(data) or 'none'}")
    if isinstance(found, Mapping) or (isinstance(found, Sequence) and not isinstance(found, str)):
        raise UserError(f"{where}: {path!r} is no figure, but {len(found)} of them")
    return found


def _index(key: str, length: int) -> int | None:
    return int(key) if key.lstrip("-").isdecimal() and -length <= int(key) < length else None
