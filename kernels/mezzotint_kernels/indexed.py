"""Attention over rows of keys and values that a table names, as if they were concatenated.

What it serves: sparse-causal video attention (frame i attends to frames 0 and i - 1: table [[0, 0], [0, 0],
[0, 1], [0, 2], ...]), sharing keys between the samples of a batch (MasaCtrl, consistent styles), and replacing
a sample's self-attention input by another's (table [[source], [source]]). Where a map is to be taken over but
not the values, or where there are several softmaxes, see `terms`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mezzotint_kernels.dispatch import architecture, choose
from mezzotint_kernels.registration import register
from mezzotint_kernels.rows import (
    arguments,
    check_factor,
    check_range,
    check_table,
    check_tensors,
    empty_output,
    launch,
    obstacle,
    placed,
    small_tile,
)
from mezzotint_kernels.terms import attention_terms_reference, terms_backward

if TYPE_CHECKING:
    from mezzotint_kernels.tiles import Tile

__all__ = ["attention_indexed", "attention_indexed_reference", "deduplicate", "indexed_arguments"]


def attention_indexed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    *,
    log_weight: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """softmax(q[b] K^T scale) V with K, V = the rows table[b, :] of k and v, concatenated: [B, H, N, D] like q.

    q: [B, H, N, D]; k, v: [R, H, M, D]; one floating dtype and device, last stride 1, any others.
    table: int32 or int64 [B, S]; the rows of k and v that sample b attends to, in any order; -1: no slot. A sample
        without slots gets zeros.
    log_weight: [B, S], natural logarithm, added to the slot's logits: log 2 counts a row twice (see
        `deduplicate`), -inf not at all; 0 by default.
    scale: of the logits, above 0; 1 / sqrt(D) by default.
    The table may be on the CPU while q is not: then it is checked, and copied. Gradients go to q, k and v; the
    backward pass is plain torch on every device, computes the maps again and reads the table on the host.
    Raises: ValueError: shapes, dtypes, devices, strides, or a number of a table on the CPU that names no row.
        A table on a GPU is not waited for: there, a number that names no row makes its sample NaN.
    Source: Wu et al. 2022, "Tune-A-Video", eq. 4, for sparse-causal attention.
    """
    scale = check_tensors(q, k, v, scale)
    if k.shape[0] != v.shape[0]:
        raise ValueError(f"k has {k.shape[0]} rows and v {v.shape[0]}; wanted as many of each")
    shape = (q.shape[0], table.shape[-1] if table.dim() == 2 else 0)
    check_table("table", table, shape, f"[{q.shape[0]}, slots]", q)
    check_factor("log_weight", log_weight, shape, f"{list(shape)}", q)
    return _call(q, k, v, table, log_weight, scale)


def attention_indexed_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    *,
    log_weight: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """As `attention_indexed`: torch's attention for one sample at a time, over a copy of its rows where they are
    several. It reads the table on the host."""
    tables = _as_terms(q, table, log_weight)
    return attention_terms_reference(q, k, v, *tables[:2], log_weight=tables[2], scale=scale)


def deduplicate(table: Tensor) -> tuple[Tensor, Tensor]:
    """A table in which no row of k is named twice, and the log_weight that makes it equal to the one given.

    table: int [B, S]. Given back: the same shape, with -1 where a row was named before, and the natural
    logarithm of how often each row is named, float32 [B, S]. [0, 0, 3] becomes [0, -1, 3] and [log 2, 0, 0].
    Raises: ValueError: not an integer table [B, S].
    """
    if table.dim() != 2 or table.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"table is {table.dtype} {tuple(table.shape)}; wanted int32 or int64 [samples, slots]")
    same = table[:, :, None] == table[:, None, :]
    first = same.tril(-1).sum(-1) == 0
    counts = torch.where(first & (table >= 0), same.sum(-1), 1)
    return torch.where(first, table, -1), counts.to(torch.float32).log()


def _as_terms(q: Tensor, table: Tensor, log_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """One term a sample: rows of q, table and weights as `attention_terms` has them."""
    own = torch.arange(q.shape[0], device=table.device)[:, None]
    return own, table[:, None], None if log_weight is None else log_weight[:, None]


def _indexed(q: Tensor, k: Tensor, v: Tensor, table: Tensor, log_weight: Tensor | None, scale: float) -> Tensor:
    choice = choose("attention_indexed", q, head_dim=q.shape[-1], obstacle=obstacle(q, k, v))
    if choice.backend == "torch":
        return attention_indexed_reference(q, k, v, table, log_weight=log_weight, scale=scale)
    check_range("table", table, -1, k.shape[0] - 1)
    out = empty_output(q, q.shape[0])
    arch = architecture(q.device)
    tile = choice.tile or small_tile(q, k)
    launch("indexed", indexed_arguments(q, k, v, out, table, log_weight, scale, tile, arch), tile, arch)
    return out


def indexed_arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    table: Tensor,
    log_weight: Tensor | None,
    scale: float,
    tile: Tile,
    arch: str,
) -> dict[str, Any]:
    """Of `_triton.indexed._fwd_kernel`, by name. The tensors may be meta ones: the audit's are."""
    found = arguments(q, k, v, out, scale, tile, arch)
    found |= {"p_table": placed(table, q), "p_log_weight": placed(log_weight, q, torch.float32)}
    return found | {"ROWS": k.shape[0], "SLOTS": table.shape[1]}


def _fake(q: Tensor, k: Tensor, v: Tensor, table: Tensor, log_weight: Tensor | None, scale: float) -> Tensor:
    return empty_output(q, q.shape[0])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, table, log_weight = ctx.saved_tensors
    own, terms, logs = _as_terms(q, table, log_weight)
    found = terms_backward(grad, q, k, v, own, terms, None, None, None, logs, None, ctx.scale)
    return (*found, None, None, None)


_call = register(
    "attention_indexed",
    "(Tensor q, Tensor k, Tensor v, Tensor table, Tensor? log_weight, float scale) -> Tensor",
    _indexed, _fake, _gradients, _keep,
)  # fmt: skip
