"""Losses over the steps, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mezzotint import Image

__all__ = ["draw_curve"]

Row = dict[str, float]


def draw_curve(curve: Sequence[Row], validated: Sequence[Row] = ()) -> Image:
    """Every loss of the rows, and the validation's, over "step"; logarithmic upwards where all are above 0."""
    from mezzotint_image import draw_chart

    names = [name for name in (curve or [{}])[0] if name == "loss" or name.endswith("_loss")]
    series = [(name, [(row["step"], row[name]) for row in curve if name in row]) for name in names]
    series += [("validation", [(row["step"], row["loss"]) for row in validated if "loss" in row])]
    drawn = [(name, points) for name, points in series if points]
    above = all(value > 0 for _, points in drawn for _, value in points)
    return draw_chart(drawn, x="step", y="loss", title="Training", y_scale="log" if drawn and above else "linear")
