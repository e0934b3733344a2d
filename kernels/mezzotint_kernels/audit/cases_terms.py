"""What the audit compiles of attention in terms: prompt-to-prompt, image prompts, regions, with every feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.audit.cases_indexed import SIZES, Shape
from mezzotint_kernels.terms import Tables, terms_arguments
from mezzotint_kernels.tiles import Tile

__all__ = ["cases"]


@dataclass(frozen=True)
class Use:
    """A call whose shape has as many slots as there are terms, one each. full: masks and lengths too."""

    shape: Shape
    full: bool = False


_USES = (
    Use(Shape("prompt-to-prompt, self", 4, 8, 4096, 4096, 40, 1)),
    Use(Shape("prompt-to-prompt, self", 4, 8, 1024, 1024, 80, 1)),
    Use(Shape("prompt-to-prompt, self", 4, 8, 256, 256, 160, 1)),
    Use(Shape("two terms", 4, 10, 4096, 4096, 64, 2)),
    Use(Shape("two terms", 4, 24, 1024, 1024, 128, 2, torch.bfloat16)),
)


def cases() -> list[Case]:
    """Each row of the table of tiles at even and odd sizes, and in float32."""
    text = [
        Use(Shape("regions of text, masks, lengths", 4, heads, 1000, 77, size, 3), full=True)
        for size, heads in SIZES.items()
    ]
    exact = [
        Use(Shape("exact", 4, heads, queries, keys, size, 2, torch.float32), full=keys == 77)
        for size, heads in SIZES.items()
        for queries, keys in ((1024, 1024), (1000, 77))
    ]
    return [_case(use) for use in (*_USES, *text, *exact)]


def _case(use: Use) -> Case:
    shape = use.shape
    rows = shape.samples * shape.heads * shape.token
    masks = shape.slots * shape.queries * 4 if use.full else 0
    return Case(
        op="attention_terms",
        label=shape.label,
        kernel="attention_terms.fp32" if shape.dtype == torch.float32 else "attention_terms",
        head_dim=shape.size,
        function="mezzotint_kernels._triton.terms:_fwd_kernel",
        arguments=partial(_arguments, use),
        grid=shape.grid,
        has_dot=True,
        flops=2 * shape.products,
        performed_flops=shape.performed,
        # Terms of one sample share its queries here, and have keys of their own.
        fewest_bytes=2 * rows * (shape.queries + shape.slots * shape.keys) + masks,
        moved_bytes=partial(shape.moved, queries_read=shape.slots),
        # torch makes a result for each term, reads it for its weight, and reads and writes the sum.
        eager_bytes=rows * (shape.slots * (2 * shape.keys + 5 * shape.queries)) + masks,
        ci=use == _USES[3],  # D64, of which every chip has a tile
        shown=use in _USES,
    )


def _arguments(use: Use, tile: Tile, arch: str) -> Mapping[str, Any]:
    shape = use.shape
    samples, terms = shape.samples, shape.slots
    q, k = shape.tokens(samples, shape.queries), shape.tokens(samples * terms, shape.keys)
    table = torch.empty(samples, terms, 1, dtype=torch.int32, device="meta")
    tables = Tables(table[..., 0], table, table)
    if use.full:
        tables = tables._replace(
            weights=torch.empty(samples, terms, device="meta"),
            masks=torch.empty(terms, shape.queries, device="meta"),
            log_weight=torch.empty(samples, terms, 1, device="meta"),
            lengths=torch.empty(k.shape[0], dtype=torch.int32, device="meta"),
        )
    return terms_arguments(q, k, k, q, tables, shape.size**-0.5, tile, arch)
