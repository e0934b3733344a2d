"""How prompt-to-prompt's tensors are handed to its Triton kernel. `p2p_arguments` takes meta tensors too."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mezzotint_kernels.dense_launch import head_split
from mezzotint_kernels.layout import aligned, dot_precision, unit
from mezzotint_kernels.tiles import Tile

__all__ = ["MAX_TOKENS", "MAX_WORDS", "Call", "launch", "obstacle", "p2p_arguments"]

MAX_TOKENS = 80
"""What the kernel takes in one block without spilling registers: CLIP's 77 tokens, padded to 64 + 16."""
MAX_WORDS = 16


class Call(NamedTuple):
    """One call, checked; as `p2p` has it. source: int32 [B], on the device."""

    q: Tensor
    k: Tensor
    w: Tensor
    u: Tensor
    source: Tensor
    key_bias: Tensor | None
    words_w: Tensor | None
    words_u: Tensor | None
    scale: float


def obstacle(tokens: int, words: int) -> str | None:
    """What keeps the kernel from a call."""
    if tokens > MAX_TOKENS:
        return f"a prompt of more than {MAX_TOKENS} tokens"
    return f"more than {MAX_WORDS} weightings of words" if words > MAX_WORDS else None


def launch(call: Call, out: Tensor, maps: Tensor, tile: Tile | None, arch: str) -> None:
    """Fill out [B, H, N, D] and maps [B, K, H, N], K may be 0."""
    from mezzotint_kernels._triton.p2p import _fwd_kernel

    rows, heads, queries, _ = call.q.shape
    tile = tile or Tile(16 if queries <= 16 else 32)  # the interpreter's: padding costs it as much as the rest
    target = aligned(out)
    arguments = p2p_arguments(call, target, maps, tile, arch)
    grid = (rows * heads * -(-queries // tile.rows),)
    # Scale and subtraction are one fused multiply-add, and Triton's default is about to change.
    _fwd_kernel[grid](**arguments, **tile.options(arch), enable_fp_fusion=True)
    if target is not out:
        out.copy_(target)


def p2p_arguments(call: Call, out: Tensor, maps: Tensor, tile: Tile, arch: str) -> dict[str, Any]:
    """Of `_triton.p2p._fwd_kernel`, by name."""
    rows, heads, queries, size = call.q.shape
    tokens, words = call.k.shape[2], maps.shape[1]
    step, (d1, d2), (t1, t2) = unit(call.q), head_split(size), head_split(tokens)
    q, k = aligned(call.q), aligned(call.k)
    w, u = (aligned(x.contiguous()) for x in (call.w, call.u))
    bias = call.key_bias
    if bias is not None:
        bias = bias.to(torch.float32).expand(rows, tokens).contiguous()
    found: dict[str, Any] = {"p_q": q, "p_k": k, "p_w": w, "p_u": u, "p_o": out, "p_source": call.source}
    found |= {"p_bias": bias, "p_words_w": call.words_w, "p_words_u": call.words_u}
    found |= {"p_maps": maps if words else None}
    for names, x in (("qb qh qm", q), ("kb kh kn", k), ("ob oh om", out)):
        found |= {f"s_{name}": stride // step for name, stride in zip(names.split(), x.stride(), strict=False)}
    found |= {"scale": call.scale, "H": heads, "M": queries, "BLOCKS": -(-queries // tile.rows), "K": words}
    found |= {"T": tokens, "T1": t1, "T2": t2, "D": size, "D1": d1, "D2": d2, "BM": tile.rows, "VEC": step}
    found |= {"KP": 1 << (words - 1).bit_length() if words else 0, "ALL_ROWS": queries % tile.rows == 0}
    return found | {"BIAS": bias is not None, "PREC": dot_precision(q.dtype, arch)}
