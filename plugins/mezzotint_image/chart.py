"""Charts: series of numbers as a picture, drawn by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Image, Report, UserError, node

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["chart", "draw_chart"]

Scale = Literal["linear", "log"]
Points = Sequence[tuple[float, float]]


@node("image.chart")
def chart(
    reports: list[Report],
    *,
    x: str,
    y: str,
    labels: list[str] | None = None,
    title: str = "",
    x_scale: Scale = "linear",
    y_scale: Scale = "linear",
    width: Annotated[int, Field(ge=64, le=8192)] = 720,
    height: Annotated[int, Field(ge=64, le=8192)] = 480,
) -> Image:
    """Lines of figures against each other, [1, H, W, 3].

    reports: one line each: a report with a list of rows, such as a training run's `curve`, or with two
        lists of one length.
    x, y: names of the figures; a row that lacks one is left out.
    labels: one for each line, in the legend.
    title: above the chart.
    x_scale, y_scale: log leaves out what is not above 0.
    width, height: of the picture, in pixels.

    Raises: UserError: no report, one without such figures, or another number of labels.
    """
    if not reports:
        raise UserError("image.chart: wanted at least one report, got none")
    if labels is not None and len(labels) != len(reports):
        raise UserError(f"image.chart: {len(labels)} labels for {len(reports)} reports")
    names = labels or [""] * len(reports)
    series = [(name, _points(report.data, x, y)) for name, report in zip(names, reports, strict=True)]
    return draw_chart(series, x=x, y=y, title=title, x_scale=x_scale, y_scale=y_scale, size=(width, height))


def draw_chart(
    series: Sequence[tuple[str, Points]],
    *,
    x: str,
    y: str,
    title: str = "",
    x_scale: Scale = "linear",
    y_scale: Scale = "linear",
    size: tuple[int, int] = (720, 480),
) -> Image:
    """Series of (x, y) with their names, as `chart` draws them."""
    import numpy as np
    import torch
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The object interface: pyplot keeps figures in a global list and looks for a screen.
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(series):
        _draw_line(axes, number, name, _drawable(points, x_scale, y_scale))
    axes.set(xlabel=x, ylabel=y, title=title, xscale=x_scale, yscale=y_scale)
    axes.grid(True, which="both", alpha=0.2)
    if x_scale == "log":
        _mark_values(axes, series)
    if any(name for name, _ in series):
        # Beside the chart where it would cover the lines.
        beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if len(series) > 6 else {}
        axes.legend(fontsize="small", **beside)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return Image(torch.from_numpy(pixels)[None].float() / 255)


def _points(data: Mapping[str, Any], x: str, y: str) -> list[tuple[float, float]]:
    """The pairs of a report: two lists, or the first list of rows in which both names occur."""
    first, second = data.get(x), data.get(y)
    if isinstance(first, Sequence) and isinstance(second, Sequence) and len(first) == len(second):
        return [(float(a), float(b)) for a, b in zip(first, second, strict=True)]
    for rows in data.values():
        if isinstance(rows, Sequence) and not isinstance(rows, str):
            pairs = [(row[x], row[y]) for row in rows if isinstance(row, Mapping) and {x, y} <= row.keys()]
            if pairs:
                return [(float(a), float(b)) for a, b in pairs]
    found = sorted({*data, *(key for rows in data.values() for key in _row_names(rows))})
    raise UserError(f"image.chart: a report has no figures {x!r} and {y!r}; it has {', '.join(found) or 'none'}")


def _row_names(rows: Any) -> list[str]:
    if isinstance(rows, Sequence) and not isinstance(rows, str):
        return [str(key) for row in rows[:1] if isinstance(row, Mapping) for key in row]
    return []


def _drawable(points: Points, x_scale: Scale, y_scale: Scale) -> list[tuple[float, float]]:
    def fits(value: float, scale: Scale) -> bool:
        return math.isfinite(value) and (scale == "linear" or value > 0)

    return [(a, b) for a, b in points if fits(a, x_scale) and fits(b, y_scale)]


def _mark_values(axes: Axes, series: Sequence[tuple[str, Points]]) -> None:
    """Ticks at the values themselves, where they are few: 5, 10, 20 and not 6 x 10^0."""
    from matplotlib.ticker import NullLocator

    values = sorted({a for _, points in series for a, _ in _drawable(points, "log", "linear")})
    if 0 < len(values) <= 12:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.xaxis.set_minor_locator(NullLocator())


def _draw_line(axes: Axes, number: int, name: str, points: list[tuple[float, float]]) -> None:
    """Ten colours, then the same ones with other dashes."""
    dashes = ("-", "--", ":", "-.")[number // 10 % 4]
    marker = "o" if len(points) <= 12 else ""
    across, up = zip(*points, strict=True) if points else ((), ())
    axes.plot(across, up, dashes, color=f"C{number % 10}", marker=marker, markersize=4, label=name or None)
