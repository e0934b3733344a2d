"""What the audit compiles of attention: the layers of SD 1.5 and SDXL, odd sizes, biases, and the gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.dense_launch import (
    Call,
    delta_arguments,
    forward_arguments,
    head_split,
    kernel_name,
    kv_arguments,
    q_arguments,
)
from mezzotint_kernels.tiles import Tile

__all__ = ["cases"]

_FILES = {
    "forward": "mezzotint_kernels._triton.attention:_fwd_kernel",
    "delta": "mezzotint_kernels._triton.attention_backward:_delta_kernel",
    "backward_kv": "mezzotint_kernels._triton.attention_backward:_bwd_kv_kernel",
    "backward_q": "mezzotint_kernels._triton.attention_backward:_bwd_q_kernel",
}
_TRAINED = ("forward", "backward_kv", "backward_q")
_PRODUCTS = {"forward": 2, "delta": 0, "backward_kv": 4, "backward_q": 3}
"""Products of the size of queries times keys times head size."""


@dataclass(frozen=True)
class Shape:
    """One call: what it is, B, H, queries, keys, D, dtype, and which bias it has ("", "bias", "key bias")."""

    what: str
    batch: int
    heads: int
    queries: int
    keys: int
    size: int
    dtype: torch.dtype = torch.float16
    bias: str = ""

    @property
    def label(self) -> str:
        dtype = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[self.dtype]
        bias = f", {self.bias}" if self.bias else ""
        return f"{self.what}, {self.queries}x{self.keys}, D{self.size}, {dtype}{bias}"

    def tokens(self, count: int) -> Tensor:
        """[B, H, count, D] as a linear layer leaves it: heads inside the tokens."""
        return torch.empty(self.batch, count, self.heads, self.size, dtype=self.dtype, device="meta").transpose(
            1, 2
        )

    def numbers(self) -> Tensor:
        """[B, H, queries], float32: the log-sum-exp, or delta."""
        return torch.empty(self.batch, self.heads, self.queries, device="meta")

    def call(self) -> Call:
        k = self.tokens(self.keys)
        full = (self.batch, 1, self.queries, self.keys)
        bias = torch.empty(full, dtype=self.dtype, device="meta") if self.bias == "bias" else None
        key_bias = torch.empty(self.batch, self.keys, device="meta") if self.bias == "key bias" else None
        return Call(self.tokens(self.queries), k, k, bias, key_bias, self.size**-0.5)


_SD15 = (
    Shape("SD 1.5 self", 2, 8, 4096, 4096, 40),
    Shape("SD 1.5 self", 2, 8, 1024, 1024, 80),
    Shape("SD 1.5 self", 2, 8, 256, 256, 160),
    Shape("SD 1.5 text", 2, 8, 4096, 77, 40),
    Shape("SD 1.5 text", 2, 8, 1024, 77, 80),
    Shape("SD 1.5 text", 2, 8, 64, 77, 160),
)
_SDXL = (
    Shape("SDXL self", 2, 10, 4096, 4096, 64),
    Shape("SDXL text", 2, 10, 4096, 77, 64),
)
_OTHER = (
    Shape("two streams", 1, 24, 4608, 4608, 128, torch.bfloat16),
    Shape("two streams, odd", 1, 24, 4429, 4429, 128, torch.bfloat16),
)
_SIZES = {40: 8, 64: 10, 80: 8, 128: 24, 160: 8}
"""Head sizes, and how many heads models have of them."""


_MASKED = [Shape("masked", 2, heads, 1000, 77, size, bias="key bias") for size, heads in _SIZES.items()]
_CI = (("forward", _SD15[3]), ("backward_q", _MASKED[0]))


def cases() -> list[Case]:
    """Each row of the table of tiles at even and odd sizes, and with each kind of bias."""
    plain = (*_SD15, *_SDXL, *_OTHER)
    training = [Shape("training", 2, heads, 1024, 1024, size) for size, heads in _SIZES.items()]
    found = [_case("forward", shape) for shape in (*plain, *_MASKED)]
    found += [_case(part, shape) for part in _TRAINED[1:] for shape in (*training, *_MASKED)]
    for size, heads in _SIZES.items():
        for rows, keys in ((1024, 1024), (1000, 77)):
            exact = Shape("exact", 2, heads, rows, keys, size, torch.float32)
            biased = Shape("masked", 2, heads, rows, keys, size, bias="bias")
            found += [_case(part, shape) for part in _TRAINED for shape in (exact, biased)]
    return found + [_case("delta", shape) for shape in (training[0], _MASKED[-1])]


def _case(part: str, shape: Shape) -> Case:
    name = kernel_name("backward_q" if part == "delta" else part, shape.call().bias)
    return Case(
        op="attention" if part == "forward" else "attention_backward",
        label=shape.label if part == "forward" else f"{part.removeprefix('backward_')}, {shape.label}",
        kernel=f"{name}.fp32" if shape.dtype == torch.float32 else name,
        head_dim=shape.size,
        function=_FILES[part],
        arguments=partial(_arguments, part, shape),
        grid=partial(_grid, part, shape),
        has_dot=part != "delta",
        flops=2 * _PRODUCTS[part] * _pairs(shape) * shape.size,
        performed_flops=partial(_performed, part, shape),
        fewest_bytes=_fewest_bytes(part, shape),
        moved_bytes=partial(_moved_bytes, part, shape),
        eager_bytes=_eager_bytes(shape) if part == "forward" else None,
        ci=(part, shape) in _CI,
        shown=not shape.bias and shape.dtype != torch.float32,
    )


def _arguments(part: str, shape: Shape, tile: Tile, arch: str) -> Mapping[str, Any]:
    call = shape.call()
    grad, dk = shape.tokens(shape.queries), shape.tokens(shape.keys)
    lse = delta = shape.numbers()
    if part == "forward":
        return forward_arguments(call, grad, lse, tile, arch)
    if part == "delta":
        return delta_arguments(grad, grad, delta, tile)
    if part == "backward_kv":
        return kv_arguments(grad, call, lse, delta, dk, dk, tile, arch)
    return q_arguments(grad, call, lse, delta, grad, tile, arch)


def _grid(part: str, shape: Shape, tile: Tile) -> int:
    rows = shape.keys if part == "backward_kv" else shape.queries
    return shape.batch * shape.heads * -(-rows // tile.rows)


def _pairs(shape: Shape) -> int:
    return shape.batch * shape.heads * shape.queries * shape.keys


def _performed(part: str, shape: Shape, tile: Tile) -> int:
    walked = shape.queries if part == "backward_kv" else shape.keys
    steps = -(-walked // tile.columns) if tile.columns else 0
    block = tile.rows * tile.columns * sum(head_split(shape.size))
    return 2 * _PRODUCTS[part] * block * steps * _grid(part, shape, tile)


def _row_bytes(shape: Shape) -> int:
    return shape.size * shape.dtype.itemsize


def _bias_bytes(shape: Shape) -> int:
    """Of the bias once, as the kernel reads it: rows padded to 16 bytes, a key bias in float32."""
    if shape.bias == "bias":
        unit = 16 // shape.dtype.itemsize
        return shape.batch * shape.queries * -(-shape.keys // unit) * 16
    return shape.batch * shape.keys * 4 if shape.bias else 0


def _fewest_bytes(part: str, shape: Shape) -> int:
    heads, row = shape.batch * shape.heads, _row_bytes(shape)
    queries, keys, numbers = heads * shape.queries * row, heads * shape.keys * row, heads * shape.queries * 4
    whole = {
        "forward": 2 * queries + 2 * keys + numbers,
        "delta": 2 * queries + numbers,
        "backward_kv": 2 * queries + 4 * keys + 2 * numbers,
        "backward_q": 3 * queries + 2 * keys + 2 * numbers,
    }
    return whole[part] + (0 if part == "delta" else _bias_bytes(shape))


def _moved_bytes(part: str, shape: Shape, tile: Tile) -> int:
    """Each program reads its own block once and walks along all of the other side."""
    row, programs = _row_bytes(shape), _grid(part, shape, tile)
    bias = _pairs(shape) * shape.dtype.itemsize if shape.bias == "bias" else 0
    kept, walked = {
        "forward": (2 * row + 4, 2 * row * shape.keys),
        "delta": (2 * row + 4, 0),
        "backward_kv": (4 * row, (2 * row + 8) * shape.queries),
        "backward_q": (3 * row + 8, 2 * row * shape.keys),
    }[part]
    rows = shape.keys if part == "backward_kv" else shape.queries
    return shape.batch * shape.heads * rows * kept + programs * walked + (0 if part == "delta" else bias)


def _eager_bytes(shape: Shape) -> int:
    """Product, softmax and product as three operations: the scores are written twice and read twice."""
    return _fewest_bytes("forward", shape) + 4 * _pairs(shape) * shape.dtype.itemsize
