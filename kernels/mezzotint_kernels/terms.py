"""Who attends to whom, as tables: several softmaxes per output sample, each with its own queries, keys and values.

    out[b] = sum_t weights[b, t] masks[b, t] softmax(q[q_rows[b, t]] K^T scale) V

where K and V are the rows table[b, t, :] of k and v_table's of v, as if concatenated. -1 is no slot, so every
sample may have its own number of terms and of slots. What the fields call by different names are tables:

- Prompt-to-prompt, self-attention replaced (Hertz et al. 2022, sec. 3.2): the edit e takes the map of the
  source s and its own values: q_rows [[s]], table [[[s]]], value_table [[[e]]].
- Prompt-to-prompt, words mixed: the map's edit is folded into the values (`p2p.fold` gives W and U):
  q_rows [[s, e]], table [[[s], [e]]], value_table [[[row of W], [row of U]]].
- Image prompts (Ye et al. 2023, "IP-Adapter", eq. 5): k and v hold the text rows and, padded to their length,
  the image rows: q_rows [[b, b]], table [[[text b], [image b]]], weights [[1, strength]], lengths [R].
- Sparse-causal video attention (Wu et al. 2022, "Tune-A-Video"): one term, slots (0, i - 1); `attention_indexed`
  is the shorter way.
- Regional prompts: a term for each prompt, q_rows [[b, b, ...]], masks [T, N] that add up to 1 at every pixel.
- Sharing between samples (MasaCtrl, consistent styles): one term whose slots are the others' rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mezzotint_kernels.dispatch import architecture, choose
from mezzotint_kernels.registration import register
from mezzotint_kernels.rows import (
    Slot,
    arguments,
    check_factor,
    check_range,
    check_table,
    check_tensors,
    differentiate,
    empty_output,
    launch,
    obstacle,
    placed,
    small_tile,
    softmax_over,
)

if TYPE_CHECKING:
    from mezzotint_kernels.tiles import Tile

__all__ = ["Tables", "attention_terms", "attention_terms_reference", "terms_arguments", "terms_backward"]


def attention_terms(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_rows: Tensor,
    table: Tensor,
    *,
    value_table: Tensor | None = None,
    weights: Tensor | None = None,
    masks: Tensor | None = None,
    log_weight: Tensor | None = None,
    lengths: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The weighted sum of the softmaxes that the tables name, [B, H, N, D] in q's dtype; see the module.

    q: [Q, H, N, D]; k: [R, H, M, D]; v: [R', H, M, D]; one floating dtype and device, last stride 1, any others.
    q_rows: int [B, T]; the row of q whose queries term t of sample b uses; -1: no such term.
    table: int [B, T, S]; rows of k, one softmax over all S; -1: no slot. A term without slots adds nothing.
    value_table: int [B, T, S]; rows of v that go with them; the same rows by default. -1: no slot.
    weights: [B, T]; 1 by default. masks: [T, N] or [B, T, N]; weights of each term at each query; 1 by default.
    log_weight: [B, T, S], natural logarithm, added to the slot's logits: log 2 counts a row twice, -inf not at
        all; 0 by default.
    lengths: int [R]; row r of k has keys 0..lengths[r]-1 (what lies behind is not read); M by default.
    scale: of the logits, above 0; 1 / sqrt(D) by default.
    The tables may be on the CPU while q is not. Gradients go to q, k and v; the backward pass is plain torch on
    every device, computes the maps again and reads the tables on the host.
    Raises: ValueError: shapes, dtypes, devices, strides, or numbers of a table on the CPU that name no row.
        A table on a GPU is not waited for: there, a number that names no row makes its sample NaN.
    """
    scale = check_tensors(q, k, v, scale)
    samples, terms = q_rows.shape if q_rows.dim() == 2 else (0, 0)
    slots = table.shape[-1] if table.dim() == 3 else 0
    shape, wanted = (samples, terms, slots), f"[{samples}, {terms}, slots]"
    check_table("q_rows", q_rows, (samples, terms), "[samples, terms]", q)
    check_table("table", table, shape, wanted, q)
    if value_table is not None:
        check_table("value_table", value_table, shape, f"{list(shape)}", q)
    elif k.shape[0] != v.shape[0]:
        raise ValueError(f"k has {k.shape[0]} rows and v {v.shape[0]}; wanted as many of each, or a value_table")
    check_factor("weights", weights, (samples, terms), f"{[samples, terms]}", q)
    check_factor("log_weight", log_weight, shape, f"{list(shape)}", q)
    if masks is not None:
        wide = (samples, terms, q.shape[2])
        check_factor(
            "masks", masks, wide[1:] if masks.dim() == 2 else wide, f"{list(wide)}, or without the first", q
        )
    if lengths is not None:
        check_table("lengths", lengths, k.shape[:1], f"[{k.shape[0]}]", q)
    return _call(q, k, v, q_rows, table, value_table, weights, masks, log_weight, lengths, scale)


def attention_terms_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_rows: Tensor,
    table: Tensor,
    *,
    value_table: Tensor | None = None,
    weights: Tensor | None = None,
    masks: Tensor | None = None,
    log_weight: Tensor | None = None,
    lengths: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """As `attention_terms`, one call of torch's attention a term. It reads the tables on the host."""
    tables = Tables(q_rows, table, value_table, weights, masks, log_weight, lengths)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    plain = weights is None and masks is None and q_rows.shape[1] == 1
    out = empty_output(q, q_rows.shape[0])
    wide = torch.promote_types(q.dtype, torch.float32)
    for b, terms in enumerate(_planned(q, k, v, tables)):
        if plain and terms:
            ((_, row, slots),) = terms
            out[b] = softmax_over(q[row], k, v, slots, scale)
            continue
        total = torch.zeros(q.shape[1:], dtype=wide, device=q.device)
        for t, row, slots in terms:
            total += softmax_over(q[row], k, v, slots, scale) * _factor(tables, b, t, total)
        out[b] = total
    return out


class Tables(NamedTuple):
    """What `attention_terms` is given beside q, k, v and the scale."""

    q_rows: Tensor
    table: Tensor
    value_table: Tensor | None = None
    weights: Tensor | None = None
    masks: Tensor | None = None
    log_weight: Tensor | None = None
    lengths: Tensor | None = None

    def check_ranges(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Raises: ValueError: a number on the CPU names no row, or more keys than there are."""
        check_range("q_rows", self.q_rows, -1, q.shape[0] - 1)
        check_range("table", self.table, -1, k.shape[0] - 1)
        if self.value_table is not None:
            check_range("value_table", self.value_table, -1, v.shape[0] - 1)
        if self.lengths is not None:
            check_range("lengths", self.lengths, 0, k.shape[2])


def _planned(q: Tensor, k: Tensor, v: Tensor, tables: Tables) -> Iterator[list[tuple[int, int, list[Slot]]]]:
    """For each sample its terms (number, row of q, slots); only those that have a key."""
    tables = Tables(*(None if x is None else x.cpu() for x in tables))
    tables.check_ranges(q, k, v)
    counts = [k.shape[2]] * k.shape[0] if tables.lengths is None else tables.lengths.tolist()
    key_rows = tables.table.tolist()
    value_rows = key_rows if tables.value_table is None else tables.value_table.tolist()
    logs = (torch.zeros(tables.table.shape) if tables.log_weight is None else tables.log_weight).tolist()
    for rows, *of_terms in zip(tables.q_rows.tolist(), key_rows, value_rows, logs, strict=True):
        terms = []
        for t, (row, *of_slots) in enumerate(zip(rows, *of_terms, strict=True)):
            slots = [
                Slot(key, value, counts[key], log)
                for key, value, log in zip(*of_slots, strict=True)
                if key >= 0 and value >= 0 and counts[key] and log != -math.inf
            ]
            if row >= 0 and slots:
                terms.append((t, row, slots))
        yield terms


def _factor(tables: Tables, b: int, t: int, like: Tensor) -> Tensor | float:
    """Weight times mask of a term: a number, [] or [N, 1]."""
    factor = 1.0 if tables.weights is None else tables.weights[b, t].to(like)
    if tables.masks is None:
        return factor
    return factor * (tables.masks[t] if tables.masks.dim() == 2 else tables.masks[b, t]).to(like)[:, None]


def _terms(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    tables, scale = Tables(*rest[:-1]), rest[-1]
    choice = choose("attention_terms", q, head_dim=q.shape[-1], obstacle=obstacle(q, k, v))
    if choice.backend == "torch":
        return attention_terms_reference(q, k, v, **tables._asdict(), scale=scale)
    tables.check_ranges(q, k, v)
    out = empty_output(q, tables.table.shape[0])
    arch = architecture(q.device)
    tile = choice.tile or small_tile(q, k)
    launch("terms", terms_arguments(q, k, v, out, tables, scale, tile, arch), tile, arch)
    return out


def terms_arguments(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, tables: Tables, scale: float, tile: Tile, arch: str
) -> dict[str, Any]:
    """Of `_triton.terms._fwd_kernel`, by name. The tensors may be meta ones: the audit's are."""
    found = arguments(q, k, v, out, scale, tile, arch)
    table, masks = placed(tables.table, q), placed(tables.masks, q, torch.float32)
    value_table = table if tables.value_table is None else placed(tables.value_table, q)
    found |= {"p_q_rows": placed(tables.q_rows, q), "p_k_table": table, "p_v_table": value_table, "p_masks": masks}
    found |= {name: placed(getattr(tables, name[2:]), q, torch.float32) for name in ("p_weights", "p_log_weight")}
    found |= {"p_lengths": placed(tables.lengths, q), "TERMS": table.shape[1], "SLOTS": table.shape[2]}
    # Masks of [T, N] hold for every sample.
    found["stride_mb"], found["stride_mt"] = (0, 0) if masks is None else (0, *masks.stride())[-3:-1]
    if tables.lengths is not None:
        found["EVEN_N"] = False
    return found | {"Q_ROWS": q.shape[0], "K_ROWS": k.shape[0], "V_ROWS": v.shape[0]}


def _fake(q: Tensor, k: Tensor, v: Tensor, q_rows: Tensor, *_: Any) -> Tensor:
    return empty_output(q, q_rows.shape[0])


def _backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, each summed in float32 (float64) over all that read a row."""
    tables, scale = Tables(*rest[:-1]), rest[-1]
    wide = torch.promote_types(q.dtype, torch.float32)
    dq, dk, dv = (torch.zeros(x.shape, dtype=wide, device=q.device) for x in (q, k, v))
    for b, terms in enumerate(_planned(q, k, v, tables)):
        for t, row, slots in terms:
            part = grad[b].to(wide) * _factor(tables, b, t, dq)
            differentiate(part, q[row], k, v, slots, scale, (dq[row], dk, dv))
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _backward_fake(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*terms_backward(grad, *ctx.saved_tensors, ctx.scale), *[None] * 8)


_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor q_rows, Tensor table, Tensor? value_table, Tensor? weights, "
    "Tensor? masks, Tensor? log_weight, Tensor? lengths, float scale"
)
terms_backward = register(
    "attention_terms_backward",
    f"(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
_call = register("attention_terms", f"({_ARGUMENTS}) -> Tensor", _terms, _fake, _gradients, _keep)
