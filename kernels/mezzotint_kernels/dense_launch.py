"""How attention's tensors are handed to its Triton kernels.

The functions that name a kernel's arguments take tensors of any device: the audit gives them meta tensors.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint_kernels.dispatch import architecture
from mezzotint_kernels.layout import aligned, dot_precision, unit
from mezzotint_kernels.tiles import Tile

__all__ = [
    "Call",
    "delta_arguments",
    "forward_arguments",
    "head_split",
    "kernel_name",
    "kv_arguments",
    "launch_backward",
    "launch_forward",
    "q_arguments",
]

_MOST_ELEMENTS = 2**31 - 1
"""Within one head, kernels address with 32 bits."""


class Call(NamedTuple):
    """What one attention call is given, checked; as `attention.attention` has it."""

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    key_bias: Tensor | None
    scale: float


def launch_forward(call: Call, tile: Tile | None) -> tuple[Tensor, Tensor]:
    """The output, laid out as q, and the natural log-sum-exp [B, H, M] in float32."""
    from mezzotint_kernels._triton.attention import _fwd_kernel

    q, k, v = call.q, call.k, call.v
    tile = tile or _small_tile(q.shape[2], k.shape[2])
    arch = architecture(q.device)
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
    target = _aligned(out)
    call = call._replace(q=_aligned(q), k=_aligned(k), v=_aligned(v))
    arguments = forward_arguments(call, target, lse, tile, arch)
    _launch(_fwd_kernel, _programs(q, q.shape[2], tile), arguments, tile, arch)
    return _filled(out, target), lse


def launch_backward(
    grad: Tensor, call: Call, out: Tensor, lse: Tensor, kv_tile: Tile | None, q_tile: Tile | None
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dv, laid out as q, k and v."""
    from mezzotint_kernels._triton.attention_backward import _bwd_kv_kernel, _bwd_q_kernel, _delta_kernel

    q, k, v = call.q, call.k, call.v
    kv_tile = kv_tile or _small_tile(k.shape[2], q.shape[2])
    q_tile = q_tile or _small_tile(q.shape[2], k.shape[2])
    arch = architecture(q.device)
    gradients = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    dq, dk, dv = (_aligned(x) for x in gradients)
    call = call._replace(q=_aligned(q), k=_aligned(k), v=_aligned(v))
    grad, out, delta = _aligned(grad), _aligned(out), torch.empty_like(lse)
    queries, keys = _programs(q, q.shape[2], q_tile), _programs(q, k.shape[2], kv_tile)
    _launch(_delta_kernel, queries, delta_arguments(out, grad, delta, q_tile), q_tile, arch)
    _launch(_bwd_kv_kernel, keys, kv_arguments(grad, call, lse, delta, dk, dv, kv_tile, arch), kv_tile, arch)
    _launch(_bwd_q_kernel, queries, q_arguments(grad, call, lse, delta, dq, q_tile, arch), q_tile, arch)
    return _filled(gradients[0], dq), _filled(gradients[1], dk), _filled(gradients[2], dv)


def _launch(kernel: Any, programs: int, arguments: dict[str, Any], tile: Tile, arch: str) -> None:
    # The forward kernel's scaling counts on fused multiply-adds, and Triton's default is about to change.
    kernel[(programs,)](**arguments, **tile.options(arch), enable_fp_fusion=True)


def _programs(q: Tensor, rows: int, tile: Tile) -> int:
    return q.shape[0] * q.shape[1] * -(-rows // tile.rows)


def _small_tile(rows: int, columns: int) -> Tile:
    """Blocks as small as the case, for the interpreter, which takes as long for a block of padding."""
    return Tile(*(min(64, max(16, 1 << (count - 1).bit_length())) for count in (rows, columns)))


def _aligned(x: Tensor) -> Tensor:
    """x [B, H, N, D], or a copy if its rows do not begin at multiples of 16 bytes or are too far apart."""
    near = x.stride(2) * x.shape[2] <= _MOST_ELEMENTS
    return aligned(x) if near else x.clone(memory_format=torch.contiguous_format)


def _filled(wanted: Tensor, made: Tensor) -> Tensor:
    return wanted if wanted is made else wanted.copy_(made)


# ---- the arguments of each kernel, by name


def forward_arguments(call: Call, out: Tensor, lse: Tensor, tile: Tile, arch: str) -> dict[str, Any]:
    """Of `_fwd_kernel`. The tile's rows are queries, its columns keys."""
    found = _arguments(call, tile.rows, tile.columns, arch)
    return {**found, "p_out": out, "p_lse": lse, **_strides("out_b out_h out_m", out)}


def delta_arguments(out: Tensor, grad: Tensor, delta: Tensor, tile: Tile) -> dict[str, Any]:
    """Of `_delta_kernel`."""
    first, second = head_split(out.shape[3])
    found: dict[str, Any] = {"p_out": out, "p_grad": grad, "p_delta": delta, "H": out.shape[1], "M": out.shape[2]}
    found |= _strides("out_b out_h out_m", out) | _strides("grad_b grad_h grad_m", grad)
    return found | {"D": out.shape[3], "D1": first, "D2": second, "BLOCK_M": tile.rows, "VEC": unit(out)}


def kv_arguments(
    grad: Tensor, call: Call, lse: Tensor, delta: Tensor, dk: Tensor, dv: Tensor, tile: Tile, arch: str
) -> dict[str, Any]:
    """Of `_bwd_kv_kernel`. The tile's rows are the keys that a program keeps, its columns queries."""
    found = _arguments(call, tile.columns, tile.rows, arch)
    found |= {"p_grad": grad, "p_lse": lse, "p_delta": delta, "p_dk": dk, "p_dv": dv}
    found |= _strides("grad_b grad_h grad_m", grad)
    return found | _strides("dk_b dk_h dk_n", dk) | _strides("dv_b dv_h dv_n", dv)


def q_arguments(
    grad: Tensor, call: Call, lse: Tensor, delta: Tensor, dq: Tensor, tile: Tile, arch: str
) -> dict[str, Any]:
    """Of `_bwd_q_kernel`. The tile's rows are queries, its columns keys."""
    found = _arguments(call, tile.rows, tile.columns, arch)
    found |= {"p_grad": grad, "p_lse": lse, "p_delta": delta, "p_dq": dq}
    return found | _strides("grad_b grad_h grad_m", grad) | _strides("dq_b dq_h dq_m", dq)


def kernel_name(part: str, bias: Tensor | None) -> str:
    """Of a kernel ("forward", "backward_kv", "backward_q") in the table of tiles.

    A bias of its own for each query needs registers, so it has rows of its own.
    """
    return f"attention_{part}.bias" if bias is not None and _varies_by_query(bias) else f"attention_{part}"


def head_split(size: int) -> tuple[int, int]:
    """(D1, D2), powers of two of at least 16 (D2 may be 0), with D1 + D2 >= size: 80 = 64 + 16, 64 = 64 + 0."""
    whole = max(16, 1 << (size - 1).bit_length())
    first = whole // 2
    if size == whole or first < 16:
        return whole, 0
    second = max(16, 1 << (size - first - 1).bit_length())
    return (first, second) if first + second < whole else (whole, 0)


def _arguments(call: Call, queries: int, keys: int, arch: str) -> dict[str, Any]:
    """What all kernels on q, k and v share; queries, keys: the sizes of their blocks."""
    q, k, v, bias, key_bias, scale = call
    heads, rows, size = q.shape[1:]
    first, second = head_split(size)
    found: dict[str, Any] = {"p_q": q, "p_k": k, "p_v": v, "scale": scale, "H": heads, "M": rows, "N": k.shape[2]}
    found |= _strides("q_b q_h q_m", q) | _strides("k_b k_h k_n", k) | _strides("v_b v_h v_n", v)
    found |= {"D": size, "D1": first, "D2": second, "BLOCK_M": queries, "BLOCK_N": keys, "VEC": unit(q)}
    found |= {"EVEN_M": rows % queries == 0, "EVEN_N": k.shape[2] % keys == 0}
    found |= {"PRECISION": dot_precision(q.dtype, arch)}
    return found | _bias_arguments(q, k.shape[2], bias, key_bias)


def _strides(names: str, x: Tensor) -> dict[str, int]:
    """{"q_b": ..., "q_h": ..., "q_m": ...}: x's outer strides in units."""
    step = unit(x)
    return {name: stride // step for name, stride in zip(names.split(), x.stride(), strict=False)}


# ---- biases


def _bias_arguments(q: Tensor, keys: int, bias: Tensor | None, key_bias: Tensor | None) -> dict[str, Any]:
    """A bias that is the same for all queries becomes a key_bias: one number a key, and not one a score."""
    if bias is not None:
        bias = bias[(None,) * (4 - bias.dim())]
    if key_bias is not None and key_bias.dim() == 2:
        key_bias = key_bias[:, None]
    if bias is not None and not _varies_by_query(bias):
        row = bias[:, :, 0].float().expand(-1, -1, keys)
        bias, key_bias = None, row if key_bias is None else row + key_bias.float()
    # Tensors and numbers that a kernel without the bias does not look at.
    found: dict[str, Any] = {"p_bias": q, "bias_b": 0, "bias_h": 0, "bias_m": 0, "bias_columns": 0, "BIAS_VEC": 1}
    found |= {"p_key_bias": q, "key_bias_b": 0, "key_bias_h": 0}
    if bias is not None:
        bias = _padded(bias.float() if bias.dtype == torch.float64 else bias, keys)
        step = 16 // bias.element_size()
        found |= {"p_bias": bias, "bias_columns": bias.shape[3] // step, "BIAS_VEC": step}
        strides = bias.expand(*q.shape[:3], -1).stride()
        found |= {f"bias_{name}": stride // step for name, stride in zip("bhm", strides, strict=False)}
    if key_bias is not None:
        key_bias = key_bias.float()  # a kernel reads a few numbers a warp, which in 2 bytes would be narrow loads
        key_bias = key_bias if key_bias.stride(2) == 1 else key_bias.contiguous()
        strides = key_bias.expand(*q.shape[:2], keys).stride()
        found |= {"p_key_bias": key_bias, "key_bias_b": strides[0], "key_bias_h": strides[1]}
    return found | {"HAS_BIAS": bias is not None, "HAS_KEY_BIAS": key_bias is not None}


def _varies_by_query(bias: Tensor) -> bool:
    return bias.dim() > 1 and bias.shape[-2] > 1 and bias.stride(-2) != 0


def _padded(bias: Tensor, keys: int) -> Tensor:
    """bias [.., .., M, keys or 1] with rows of whole units of 16 bytes, aligned, filled up with -inf.

    A row of 77 numbers of 2 bytes would be read one by one.
    """
    step = 16 // bias.element_size()
    whole = bias.shape[3] == keys and keys % step == 0 and bias.stride(3) == 1 and bias.data_ptr() % 16 == 0
    rows = all(
        count == 1 or stride % step == 0 for stride, count in zip(bias.stride(), bias.shape[:3], strict=False)
    )
    if whole and rows and bias.stride(2) * bias.shape[2] <= _MOST_ELEMENTS:
        return bias
    return F.pad(bias.expand(-1, -1, -1, keys), (0, -keys % step), value=-math.inf).contiguous()
