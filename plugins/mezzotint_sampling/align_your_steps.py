"""Noise levels found by optimisation, for families of models. Source: Sabour et al. 2024, "Align your steps".

The numbers are those that the authors publish (research.nvidia.com/labs/toronto-ai/AlignYourSteps/howto.html),
of ten steps; other numbers of steps take the levels between, log-linearly, as they advise. diffusers has the
same ones as `AysSchedules`, with 0 in place of the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

__all__ = ["TABLES", "TableName", "log_linear"]

TableName = Literal["sd1", "sdxl", "svd"]

TABLES: dict[TableName, tuple[float, ...]] = {
    "sd1": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "svd": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
"""k-diffusion's sigma: eleven levels each, the last of which a run replaces by 0."""


def log_linear(values: Sequence[float], count: int) -> np.ndarray:
    """`count` values whose logarithms lie on the line through those of `values`, both ends kept."""
    if count == len(values):
        return np.array(values)
    places = np.linspace(0, len(values) - 1, count)
    return np.exp(np.interp(places, np.arange(len(values)), np.log(values)))
