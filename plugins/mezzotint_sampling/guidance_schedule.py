"""How strong guidance is along a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mezzotint import NoiseLevel, Port, UserError

__all__ = ["GuidanceSchedule", "strength"]


@dataclass(frozen=True, eq=False)
class GuidanceSchedule(Port):
    """A factor for the strength of guidance: 1 is all of it, 0 none.

    shape: how it goes from `first` at the noisiest step to `last`. factors: one for each step, in
    place of the shape. sigma_low, sigma_high: outside (low, high] of k-diffusion's sigma it is 0.
    """

    shape: Literal["constant", "linear", "cosine"] = "constant"
    first: float = 1.0
    last: float = 1.0
    factors: tuple[float, ...] = ()
    sigma_low: float = 0.0
    sigma_high: float | None = None

    def at(self, level: NoiseLevel) -> float:
        """The factor at a level. Raises: UserError: `factors` are not as many as the run has steps."""
        ratio = level.sigma / level.alpha if level.alpha > 0 else math.inf
        high = math.inf if self.sigma_high is None else self.sigma_high
        if not self.sigma_low < ratio <= high:
            return 0.0
        if self.factors:
            if len(self.factors) != level.steps:
                raise UserError(
                    f"the guidance schedule has factors for {len(self.factors)} steps; the run has {level.steps}"
                )
            # A corrector looks at the level where a run ends, if there is noise there: as at the last step.
            return self.factors[min(level.step, level.steps - 1)]
        if self.shape == "constant":
            return self.first
        place = level.progress if self.shape == "linear" else (1 - math.cos(math.pi * level.progress)) / 2
        return self.first + (self.last - self.first) * place


def strength(level: NoiseLevel, scale: float, schedule: GuidanceSchedule | None, off: float) -> float:
    """The scale at a level; `off` is the scale that guides nothing. Exactly so at factors 1 and 0."""
    factor = 1.0 if schedule is None else schedule.at(level)
    if factor in (0.0, 1.0):
        return scale if factor else off
    return off + factor * (scale - off)
