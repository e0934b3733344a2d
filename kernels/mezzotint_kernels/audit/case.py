"""What the audit compiles: one kernel, at one shape, as its launcher would launch it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mezzotint_kernels.tiles import Tile, find

__all__ = ["ARCHITECTURES", "Case"]

ARCHITECTURES = ("sm80", "sm90", "sm100", "gfx942")
"""The architectures that the tables are made for."""


@dataclass(frozen=True)
class Case:
    """One kernel at one shape. `cases_<subject>.py` has `cases() -> list[Case]`.

    op: the public op, "attention".
    label: what tells this case from the op's others, "SD 1.5 64x64, D40, fp16"; unique within the op.
    kernel: the name in the table of tiles, "attention_forward"; head_dim: 0 where there is none.
    function: where the @triton.jit function is, "mezzotint_kernels._triton.attention:_fwd_kernel".
    arguments: from (tile, architecture), each argument of the function as the launcher would pass it, by name.
        A pointer is a meta tensor, or its type, "*fp16": taken to be aligned to 16 bytes, as torch's allocations
        are ("*fp16:2" is aligned to 2 only). Numbers and constexprs are the numbers themselves: the audit finds
        divisibility by 16, ones, and int32 or int64 with the JIT's own code.
    grid: from the tile, the number of programs.
    has_dot: a matrix product is in it, so a matrix instruction must be.
    reproducible: bit for bit the same everywhere, so compiled without fused multiply-add, and held to it.
    flops: floating-point operations that the result needs, 2 for a multiply and add; padding not counted.
    performed_flops: from the tile, those of the matrix instructions, padding of head sizes and blocks counted
        (4 * B * H * M * N * (D1 + D2) for plain attention); None: `flops`.
    fewest_bytes: each input read once and each output written once.
    moved_bytes: from the tile, what the programs ask of the L2 cache in total; None: the fewest.
    eager_bytes: what the reference's separate torch operations move; None: not said.
    ci: compiled in every CI run; one for each op, a small quick one that is still typical.
    shown: in the document's tables; the others are compiled, checked and counted there.
    architectures: where it is compiled, less those for which the table has no tile.
    options: further compile options ({"waves_per_eu": 2}); not warps, stages, maxnreg or enable_fp_fusion.
    """

    op: str
    label: str
    kernel: str
    head_dim: int
    function: str
    arguments: Callable[[Tile, str], Mapping[str, Any]]
    grid: Callable[[Tile], int]
    has_dot: bool
    fewest_bytes: int
    reproducible: bool = False
    flops: int = 0
    performed_flops: Callable[[Tile], int] | None = None
    moved_bytes: Callable[[Tile], int] | None = None
    eager_bytes: int | None = None
    ci: bool = False
    shown: bool = True
    architectures: tuple[str, ...] = ARCHITECTURES
    options: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.op}: {self.label}"

    def tile(self, arch: str) -> Tile | None:
        """The tile that dispatch takes there; None: it takes the reference."""
        return find(self.kernel, self.head_dim, arch)
