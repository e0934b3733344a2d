"""The least time that a case can take on a chip. Bounds, not forecasts: no run can be faster, and all are slower.

Each limit is taken alone, and everything else is taken to overlap with it perfectly:

- memory: the fewest bytes, at the data sheet's rate;
- matrix: the operations of the matrix instructions, padding counted, at the data sheet's peak;
- issue: NVIDIA: the hot loop's instructions through 4 schedulers, one a clock each;
  AMD: its vector instructions, 4 clocks each on one of 4 SIMDs;
- slow: those of exponentials and reciprocals, at a quarter of the vector rate (NVIDIA: 16 a clock).

How often the loop is gone around follows from the operations of its matrix instructions.
"""

from __future__ import annotations

from dataclasses import dataclass

from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.audit.chips import CHIPS
from mezzotint_kernels.audit.figures import Figures

__all__ = ["Bound", "best_case"]


@dataclass(frozen=True)
class Bound:
    """seconds: at least. by: the limit that gives it, "memory", "matrix", "issue" or "slow"."""

    seconds: float
    by: str


def best_case(case: Case, arch: str, figures: Figures) -> Bound | None:
    """The greatest of the limits; None where there is no chip to say it of (sm100)."""
    chip = CHIPS.get(arch)
    tile = case.tile(arch)
    if chip is None or tile is None:
        return None
    counts = figures.mix
    performed = case.performed_flops(tile) if case.performed_flops else case.flops
    limits = {"memory": case.fewest_bytes / chip.memory}
    if case.has_dot:
        limits["matrix"] = performed / (chip.matrix / (2 if counts.tf32 else 1))
    if counts.loop_flops:
        turns = performed / counts.loop_flops / chip.units  # of all warps around the loop, on one multiprocessor
        if arch.startswith("gfx"):
            clocks = {"issue": counts.loop_vector * 4 / 4, "slow": counts.loop_slow * 16 / 4}
        else:
            clocks = {"issue": counts.loop / 4, "slow": counts.loop_slow * 32 / 16}
        limits |= {name: turns * each / chip.clock for name, each in clocks.items()}
    by = max(limits, key=lambda name: limits[name])
    return Bound(limits[by], by)
