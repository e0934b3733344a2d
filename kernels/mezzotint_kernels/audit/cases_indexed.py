"""What the audit compiles of attention over a table of rows: sparse-causal video, odd sizes, float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.dense_launch import head_split
from mezzotint_kernels.indexed import indexed_arguments
from mezzotint_kernels.tiles import Tile

__all__ = ["SIZES", "Shape", "cases"]

SIZES = {40: 8, 64: 10, 80: 8, 128: 24, 160: 8}
"""Head sizes, and how many heads models have of them."""


@dataclass(frozen=True)
class Shape:
    """One call: samples, heads, queries, keys of a row, D, rows that a sample attends to, dtype."""

    what: str
    samples: int
    heads: int
    queries: int
    keys: int
    size: int
    slots: int = 2
    dtype: torch.dtype = torch.float16

    @property
    def label(self) -> str:
        dtype = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[self.dtype]
        return f"{self.what}, {self.queries}x{self.slots} of {self.keys}, D{self.size}, {dtype}"

    @property
    def products(self) -> int:
        """Multiplications and additions of one product, of q and k or of p and v."""
        return 2 * self.samples * self.heads * self.queries * self.slots * self.keys * self.size

    @property
    def token(self) -> int:
        """Bytes of one token of one head."""
        return self.size * self.dtype.itemsize

    def tokens(self, rows: int, count: int) -> Tensor:
        """[rows, H, count, D] as a linear layer leaves it: heads inside the tokens."""
        found = torch.empty(rows, count, self.heads, self.size, dtype=self.dtype, device="meta")
        return found.transpose(1, 2)

    def grid(self, tile: Tile) -> int:
        return self.samples * self.heads * -(-self.queries // tile.rows)

    def performed(self, tile: Tile) -> int:
        """Operations of the matrix instructions, whole blocks and both parts of a head counted."""
        steps = self.slots * -(-self.keys // tile.columns)
        return 4 * tile.rows * tile.columns * steps * sum(head_split(self.size)) * self.grid(tile)

    def moved(self, tile: Tile, queries_read: int = 1) -> int:
        """Bytes that the programs ask for: queries and results once, and all keys and values again in each."""
        queries = self.samples * self.heads * self.queries * self.token * (queries_read + 1)
        return queries + self.grid(tile) * 2 * self.slots * self.keys * self.token


_VIDEO = (
    Shape("sparse-causal, 16 frames", 16, 8, 4096, 4096, 40),
    Shape("sparse-causal, 16 frames", 16, 8, 1024, 1024, 80),
    Shape("sparse-causal, 16 frames", 16, 8, 256, 256, 160),
    Shape("sparse-causal, 16 frames", 16, 10, 4096, 4096, 64),
    Shape("sparse-causal, 16 frames", 16, 24, 1024, 1024, 128, dtype=torch.bfloat16),
)


def cases() -> list[Case]:
    """Each row of the table of tiles at even and odd sizes, and in float32."""
    odd = [Shape("shared keys, odd", 4, heads, 1000, 250, size, 3) for size, heads in SIZES.items()]
    exact = [
        Shape("exact", 4, heads, queries, keys, size, dtype=torch.float32)
        for size, heads in SIZES.items()
        for queries, keys in ((1024, 1024), (1000, 250))
    ]
    return [_case(shape) for shape in (*_VIDEO, *odd, *exact)]


def _case(shape: Shape) -> Case:
    rows = shape.samples * shape.heads * shape.token
    return Case(
        op="attention_indexed",
        label=shape.label,
        kernel="attention_indexed.fp32" if shape.dtype == torch.float32 else "attention_indexed",
        head_dim=shape.size,
        function="mezzotint_kernels._triton.indexed:_fwd_kernel",
        arguments=partial(_arguments, shape),
        grid=shape.grid,
        has_dot=True,
        flops=2 * shape.products,
        performed_flops=shape.performed,
        fewest_bytes=2 * rows * (shape.queries + shape.keys),
        moved_bytes=shape.moved,
        # torch copies the slots' keys and values together, and reads the copy.
        eager_bytes=2 * rows * (shape.queries + 3 * shape.slots * shape.keys),
        ci=shape == _VIDEO[1],
        shown=shape in _VIDEO,
    )


def _arguments(shape: Shape, tile: Tile, arch: str) -> Mapping[str, Any]:
    q, k = shape.tokens(shape.samples, shape.queries), shape.tokens(shape.samples, shape.keys)
    table = torch.empty(shape.samples, shape.slots, dtype=torch.int32, device="meta")
    weights = torch.empty(shape.samples, shape.slots, device="meta")
    return indexed_arguments(q, k, k, q, table, weights, shape.size**-0.5, tile, arch)
