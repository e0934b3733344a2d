"""A kernel's compile-time configuration, and where it is looked up. No torch, no Triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FALLBACK", "NOT_TAKEN", "Tile", "find"]

FALLBACK = {"sm86": "sm80", "sm89": "sm80"}
"""Architectures without rows of their own, and whose rows they take; `make slow` compiles these for them too."""

NOT_TAKEN = frozenset({("attention_backward_q", 128), ("attention_indexed", 128)})
"""Kernels and head sizes whose sm80 row spills registers on sm86 and sm89 (8 and 24 bytes)."""


@dataclass(frozen=True)
class Tile:
    """How one kernel is cut and compiled for one architecture.

    rows: of the block that a program computes: queries (attention), pixels (temporal), elements (step, norm).
    columns: of the block that it walks along: keys; 0 where a kernel has none.
    warps, stages, maxnreg: Triton's num_warps, num_stages and the cap on registers a thread (None: the
        compiler's own choice; AMD has none).
    """

    rows: int
    columns: int = 0
    warps: int = 4
    stages: int = 2
    maxnreg: int | None = None

    def options(self, arch: str) -> dict[str, Any]:
        """The options of a launch or a compile; give `enable_fp_fusion` beside them, always."""
        found: dict[str, Any] = {"num_warps": self.warps, "num_stages": self.stages}
        if self.maxnreg is not None and arch.startswith("sm"):
            found["maxnreg"] = self.maxnreg
        return found


def find(kernel: str, head_dim: int, arch: str) -> Tile | None:
    """The table's row for a kernel, head size (0: the kernel has none) and architecture ("sm90", "gfx942").

    None: there is no configuration that is known to be clean; dispatch then takes the reference.
    """
    from mezzotint_kernels._triton.configs import TILES

    row = TILES.get((kernel, head_dim, arch))
    if row is None and arch in FALLBACK and (kernel, head_dim) not in NOT_TAKEN:
        row = TILES.get((kernel, head_dim, FALLBACK[arch]))
    return row
