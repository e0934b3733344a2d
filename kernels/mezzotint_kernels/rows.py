"""Softmax attention over rows that tables name: what the ops on them check, and the plain-torch mathematics.

A row is one entry of the first dimension of q [Q, H, N, D] or of k, v [R, H, M, D]: a frame, a sample, a
prompt. A slot of a table names one; the slots of one softmax count as if they were concatenated along keys.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint_kernels.dense_launch import head_split
from mezzotint_kernels.layout import aligned, dot_precision, unit
from mezzotint_kernels.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Slot",
    "arguments",
    "check_factor",
    "check_range",
    "check_table",
    "check_tensors",
    "differentiate",
    "empty_output",
    "launch",
    "obstacle",
    "placed",
    "small_tile",
    "softmax_over",
]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BACKWARD_LOGITS = 1 << 24
"""Logits held at once in the backward pass, so that its memory does not grow with queries times keys."""


class Slot(NamedTuple):
    """Keys 0..keys-1 of row `key` of k with the values of row `value` of v, counted exp(log_weight) times."""

    key: int
    value: int
    keys: int
    log_weight: float = 0.0


def softmax_over(q: Tensor, k: Tensor, v: Tensor, slots: Sequence[Slot], scale: float) -> Tensor:
    """One row of queries [H, N, D] over the slots' keys and values: [H, N, D]. One slot copies nothing."""
    keys, values, bias = _gathered(k, v, slots)
    mask = None if bias is None else bias.to(torch.promote_types(q.dtype, torch.float32))[None, None, None]
    return F.scaled_dot_product_attention(q[None], keys[None], values[None], attn_mask=mask, scale=scale)[0]


def differentiate(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slots: Sequence[Slot],
    scale: float,
    into: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Add the gradients of `softmax_over`, given its result's [H, N, D], to buffers shaped as q, k and v.

    The probabilities are computed again, a block of queries at a time. Arithmetic is in the buffers' dtype.
    """
    dq, dk, dv = into
    keys, values, bias = _gathered(k, v, slots)
    keys, values = keys.to(dk.dtype), values.to(dk.dtype)
    step = max(1, BACKWARD_LOGITS // (keys.shape[0] * keys.shape[1]))
    for start in range(0, q.shape[1], step):
        part = slice(start, start + step)
        q_part, g = q[:, part].to(dq.dtype), grad[:, part].to(dq.dtype)
        logits = q_part @ keys.mT * scale
        p = (logits if bias is None else logits + bias.to(logits)).softmax(-1)
        dp = g @ values.mT
        ds = p * (dp - (dp * p).sum(-1, keepdim=True)) * scale
        dq[:, part] += ds @ keys
        pieces = [slot.keys for slot in slots]
        for slot, dk_piece, dv_piece in zip(
            slots, (ds.mT @ q_part).split(pieces, 1), (p.mT @ g).split(pieces, 1), strict=True
        ):
            dk[slot.key, :, : slot.keys] += dk_piece
            dv[slot.value, :, : slot.keys] += dv_piece


def _gathered(k: Tensor, v: Tensor, slots: Sequence[Slot]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys and values [H, K, D] of the slots one after another, and the bias [K] where weights differ."""
    if len(slots) == 1:
        ((key, value, length, _),) = slots
        return k[key, :, :length], v[value, :, :length], None
    keys = torch.cat([k[slot.key, :, : slot.keys] for slot in slots], dim=1)
    values = torch.cat([v[slot.value, :, : slot.keys] for slot in slots], dim=1)
    if len({slot.log_weight for slot in slots}) == 1:  # a weight that all share cancels
        return keys, values, None
    weights = torch.tensor([slot.log_weight for slot in slots], dtype=torch.float64)
    return keys, values, weights.repeat_interleave(torch.tensor([slot.keys for slot in slots])).to(k.device)


def empty_output(q: Tensor, samples: int) -> Tensor:
    """An uninitialised [samples, H, N, D] that lies in memory as q does: heads outside, or inside the queries."""
    _, heads, queries, size = q.shape
    if q.stride(1) < q.stride(2):
        return q.new_empty(samples, queries, heads, size).transpose(1, 2)
    return q.new_empty(samples, heads, queries, size)


def obstacle(*tensors: Tensor) -> str | None:
    """What the kernels cannot do about q, k or v, in words; None: nothing."""
    far = any(x.shape[2] * x.stride(2) >= 1 << 31 for x in tensors)
    return "tokens of one head lie 2^31 elements apart; the kernels address them with 32 bits" if far else None


def small_tile(q: Tensor, k: Tensor) -> Tile:
    """For the interpreter, which takes as long for a block of padding: blocks of 16 or 32."""
    return Tile(*(16 if x.shape[2] <= 16 else 32 for x in (q, k)))


def arguments(q: Tensor, k: Tensor, v: Tensor, out: Tensor, scale: float, tile: Tile, arch: str) -> dict[str, Any]:
    """What both kernels are given of the tensors, by name. They may be meta tensors."""
    _, heads, queries, size = q.shape
    keys, step, (first, second) = k.shape[2], unit(q), head_split(size)
    q, k, v = (aligned(x) for x in (q, k, v))
    found: dict[str, Any] = {"p_q": q, "p_k": k, "p_v": v, "p_out": out, "scale": scale}
    for names, x in (("qb qh qn", q), ("kr kh kn", k), ("vr vh vn", v), ("ob oh on", out)):
        found |= {f"stride_{n}": s // step for n, s in zip(names.split(), x.stride(), strict=False)}
    found |= {"H": heads, "N": queries, "M": keys, "D": size, "D1": first, "D2": second, "VEC": step}
    found |= {"BM": tile.rows, "BN": tile.columns}
    found |= {"EVEN_M": queries % tile.rows == 0, "EVEN_N": keys % tile.columns == 0}
    return found | {"PRECISION": dot_precision(q.dtype, arch)}


def launch(subject: str, found: dict[str, Any], tile: Tile, arch: str) -> None:
    """Run `_fwd_kernel` of a `_triton` module: a program for each block of queries of each head and sample."""
    kernel = import_module(f"mezzotint_kernels._triton.{subject}")._fwd_kernel
    samples, heads, queries, _ = found["p_out"].shape
    # A logit's scale, weight and shift are one fused multiply-add, and Triton's default is about to change.
    kernel[(samples * heads * -(-queries // tile.rows),)](**found, **tile.options(arch), enable_fp_fusion=True)


def placed(tensor: Tensor | None, like: Tensor, dtype: torch.dtype | None = None) -> Any:
    """A table or factor as a kernel reads it: on like's device and contiguous. A copy only where it is not so."""
    return None if tensor is None else tensor.to(like.device, dtype, non_blocking=True).contiguous()


def check_tensors(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> float:
    """The scale of the logits, 1 / sqrt(D) by default. Raises: ValueError: q, k, v or the scale do not fit."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 4 or 0 in x.shape:
            raise ValueError(
                f"{name} of shape {tuple(x.shape)}; wanted [rows, heads, tokens, size], none of them 0"
            )
        if x.dtype not in DTYPES or x.dtype != q.dtype or x.device != q.device:
            raise ValueError(
                f"{name} is {x.dtype} on {x.device}; wanted q, k and v of one floating dtype on one device "
                f"(q: {q.dtype} on {q.device})"
            )
        if x.stride(-1) != 1:
            raise ValueError(f"{name} has strides {x.stride()}; wanted its last dimension to lie together (1)")
    if k.shape[1:] != v.shape[1:] or k.shape[1] != q.shape[1] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"q, k, v of shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}; wanted the same heads "
            "and size in all three, and as many keys as values"
        )
    found = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if not 0 < found < math.inf:
        raise ValueError(f"scale is {scale}; wanted a finite number above 0")
    return found


def check_table(name: str, table: Tensor, shape: Sequence[int], wanted: str, like: Tensor) -> None:
    """Raises: ValueError: not int32 or int64 of that shape, or on a device that is neither like's nor the CPU."""
    if table.dtype not in (torch.int32, torch.int64) or tuple(table.shape) != tuple(shape) or 0 in table.shape:
        raise ValueError(f"{name} is {table.dtype} {tuple(table.shape)}; wanted int32 or int64 {wanted}, none 0")
    if table.device not in (like.device, torch.device("cpu")):
        raise ValueError(f"{name} is on {table.device}; wanted {like.device} or the CPU")


def check_factor(name: str, factor: Tensor | None, shape: Sequence[int], wanted: str, like: Tensor) -> None:
    """Raises: ValueError: not floating, of another shape, elsewhere, or its gradient is wanted: there is none."""
    if factor is None:
        return
    if not factor.is_floating_point() or tuple(factor.shape) != tuple(shape):
        raise ValueError(f"{name} is {factor.dtype} {tuple(factor.shape)}; wanted a floating dtype, {wanted}")
    if factor.device not in (like.device, torch.device("cpu")):
        raise ValueError(f"{name} is on {factor.device}; wanted {like.device} or the CPU")
    if factor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} wants a gradient, which is not computed; wanted {name}.detach()")


def check_range(name: str, table: Tensor, low: int, high: int) -> None:
    """Raises: ValueError: a number of a CPU table is not in low..high. Other devices are not waited for."""
    if table.device.type == "cpu":
        least, most = (int(x) for x in table.aminmax())
        if least < low or most > high:
            raise ValueError(f"{name} has numbers from {least} to {most}; wanted {low} to {high}")
