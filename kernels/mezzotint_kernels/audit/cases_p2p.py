"""What the audit compiles of prompt-to-prompt: layers of SD 1.5 and SDXL, odd sizes, words of a local blend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.dense_launch import head_split
from mezzotint_kernels.p2p_launch import Call, p2p_arguments
from mezzotint_kernels.tiles import Tile

__all__ = ["cases"]


@dataclass(frozen=True)
class Shape:
    """One call: B (every second row edits the one before), H, queries, tokens, D, weightings of words, dtype."""

    what: str
    batch: int
    heads: int
    queries: int
    tokens: int
    size: int
    words: int = 0
    bias: bool = False
    dtype: torch.dtype = torch.float16

    @property
    def label(self) -> str:
        dtype = {torch.float16: "fp16", torch.bfloat16: "bf16"}[self.dtype]
        words = f", {self.words} words" if self.words else ""
        bias = ", key bias" if self.bias else ""
        return f"{self.what}, {self.queries}x{self.tokens}, D{self.size}, {dtype}{words}{bias}"

    @property
    def terms(self) -> int:
        """Of all rows: one for a source, two for an edit."""
        return self.batch + self.batch // 2

    def grid(self, tile: Tile) -> int:
        return self.batch * self.heads * -(-self.queries // tile.rows)

    def performed(self, tile: Tile) -> int:
        blocks = self.terms * self.heads * -(-self.queries // tile.rows)
        return 4 * blocks * tile.rows * sum(head_split(self.tokens)) * sum(head_split(self.size))

    def moved(self, tile: Tile) -> int:
        """Each term reads its queries, its keys and its values; the result is written once."""
        token = self.size * self.dtype.itemsize
        blocks = self.terms * self.heads * -(-self.queries // tile.rows)
        queries = (self.terms + self.batch) * self.heads * self.queries * token
        return queries + blocks * 2 * self.tokens * token + self.maps

    @property
    def maps(self) -> int:
        return 4 * self.batch * self.words * self.heads * self.queries


_LAYERS = (
    Shape("SD 1.5", 2, 8, 4096, 77, 40),
    Shape("SD 1.5", 2, 8, 1024, 77, 80),
    Shape("SD 1.5, local blend", 2, 8, 256, 77, 160, words=1),
    Shape("SDXL", 2, 10, 4096, 77, 64),
    Shape("two streams", 2, 24, 1024, 77, 128, dtype=torch.bfloat16),
)
_SIZES = {40: 8, 64: 10, 80: 8, 128: 24, 160: 8}
"""Head sizes, and how many heads models have of them."""


def cases() -> list[Case]:
    """Each row of the table of tiles, plain, and with odd sizes, words and a bias at once."""
    odd = [Shape("odd", 4, heads, 1001, 77, size, words=3, bias=True) for size, heads in _SIZES.items()]
    full = [Shape("all columns", 2, heads, 1024, 80, size) for size, heads in _SIZES.items()]
    return [_case(shape) for shape in (*_LAYERS, *odd, *full)]


def _case(shape: Shape) -> Case:
    token, heads = shape.size * shape.dtype.itemsize, shape.batch * shape.heads
    # Queries and results of all rows, keys and U of all, W of the edits.
    fewest = (
        heads * (2 * shape.queries + 2 * shape.tokens) * token + heads // 2 * shape.tokens * token + shape.maps
    )
    map_bytes = heads * shape.queries * shape.tokens * shape.dtype.itemsize
    return Case(
        op="p2p_attention",
        label=shape.label,
        kernel="p2p",
        head_dim=shape.size,
        function="mezzotint_kernels._triton.p2p:_fwd_kernel",
        arguments=partial(_arguments, shape),
        grid=shape.grid,
        has_dot=True,
        flops=4 * shape.terms * shape.heads * shape.queries * shape.tokens * shape.size,
        performed_flops=shape.performed,
        fewest_bytes=fewest,
        moved_bytes=shape.moved,
        # Logits and probabilities of each row written and read; of an edit's, the mapped and the mixed ones too.
        eager_bytes=fewest + 4 * map_bytes + 4 * map_bytes // 2,
        ci=shape == _LAYERS[0],
        shown=shape in _LAYERS,
    )


def _arguments(shape: Shape, tile: Tile, arch: str) -> Mapping[str, Any]:
    def tokens(count: int) -> Tensor:
        """[B, H, count, D] as a linear layer leaves it: heads inside the tokens."""
        made = torch.empty(shape.batch, count, shape.heads, shape.size, dtype=shape.dtype, device="meta")
        return made.transpose(1, 2)

    values = torch.empty(shape.batch, shape.heads, shape.tokens, shape.size, dtype=shape.dtype, device="meta")
    words = torch.empty(shape.batch, shape.words, shape.tokens, device="meta") if shape.words else None
    bias = torch.empty(shape.batch, shape.tokens, device="meta") if shape.bias else None
    source = torch.empty(shape.batch, dtype=torch.int32, device="meta")
    call = Call(
        tokens(shape.queries), tokens(shape.tokens), values, values, source, bias, words, words, shape.size**-0.5
    )
    maps = torch.empty(shape.batch, shape.words, shape.heads, shape.queries, device="meta")
    return p2p_arguments(call, tokens(shape.queries), maps, tile, arch)
