"""One step of any linear sampler as a row of numbers. No torch: samplers are listed without it."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["MAX_HISTORY", "Coefficients", "Number"]

MAX_HISTORY = 3
"""How many tensors of earlier steps a step can take."""

Number = float | tuple[float, ...]
"""One number for the whole batch, or a tuple with one for each sample."""


@dataclass(frozen=True)
class Coefficients:
    """One row: all the numbers of one step; `mezzotint_kernels.step` has the formula.

    cx, cg, c0, ch, cz: of the sample, the guided output, the clean picture, the history, the noise.
    ax, am, lo, hi: how the clean picture follows from sample and guided output, and its bounds.
    k0, kz: how much picture and how much noise the known region gets.
    next_scale: of the extra copy made for the model's next input.
    """

    cx: Number = 0.0
    cg: Number = 0.0
    c0: Number = 0.0
    ch: tuple[Number, ...] = ()
    cz: Number = 0.0
    ax: Number = 0.0
    am: Number = 1.0
    lo: Number = -math.inf
    hi: Number = math.inf
    k0: Number = 1.0
    kz: Number = 0.0
    next_scale: Number = 1.0
