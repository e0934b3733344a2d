"""Group norm with scale, shift and SiLU in one pass, and the gated GELU.

They pay only where torch runs each operation for itself: on a GPU in eager mode. On a CPU, and under
torch.compile, which fuses them by itself, the references run.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint_kernels.dispatch import architecture, choose
from mezzotint_kernels.philox_launch import on_device, power_of_two
from mezzotint_kernels.registration import register
from mezzotint_kernels.tiles import Tile

__all__ = [
    "geglu",
    "geglu_arguments",
    "geglu_reference",
    "norm_silu",
    "norm_silu_arguments",
    "norm_silu_reference",
]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """silu(group_norm(x) * (1 + scale) + shift).

    x: [B, C, ...], any float dtype; C a multiple of `groups`. weight, bias: [C], or None for 1 and 0.
    scale, shift: [B, C], or None for 0: what a time embedding asks for.
    Raises: ValueError: shapes, dtypes or devices do not fit, or x is empty.
    Source: Wu and He 2018, "Group normalization"; Dhariwal and Nichol 2021, section 4.3 (scale and shift).
    """
    _check_norm(x, groups, {"weight": weight, "bias": bias}, {"scale": scale, "shift": shift}, eps)
    if torch.compiler.is_compiling() or x.dtype == torch.float64:
        return norm_silu_reference(x, groups, weight, bias, scale=scale, shift=shift, eps=eps)
    if choose("norm_silu", x).backend == "torch":
        return norm_silu_reference(x, groups, weight, bias, scale=scale, shift=shift, eps=eps)
    return _norm_silu(x, groups, weight, bias, scale, shift, eps)


def norm_silu_reference(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`norm_silu` by torch's own operations, each rounded to x's dtype."""
    ones = [1] * (x.dim() - 2)
    parameters = (None if p is None else p.to(x.dtype) for p in (weight, bias))
    y = F.group_norm(x, groups, *parameters, eps)
    if scale is not None:
        y = y * (1 + scale.to(x.dtype).view(*scale.shape, *ones))
    if shift is not None:
        y = y + shift.to(x.dtype).view(*shift.shape, *ones)
    return F.silu(y)


def geglu(x: Tensor) -> Tensor:
    """a * gelu(b), where a and b are the halves of x's last dimension; the exact GELU, with erf.

    x: [..., 2 D], any float dtype. -> [..., D].
    Raises: ValueError: the last dimension is odd, or x is empty or no tensor of floats.
    Source: Shazeer 2020, "GLU variants improve transformer", eq. 5.
    """
    if x.dtype not in _FLOATS or x.numel() == 0 or x.dim() == 0 or x.shape[-1] % 2:
        raise ValueError(f"x must be [..., 2 D], floats, not empty; got {x.dtype} of shape {tuple(x.shape)}")
    if torch.compiler.is_compiling() or x.dtype == torch.float64 or choose("geglu", x).backend == "torch":
        return geglu_reference(x)
    return _geglu(x)


def geglu_reference(x: Tensor) -> Tensor:
    """`geglu` by torch's own operations."""
    a, b = x.chunk(2, dim=-1)
    return a * F.gelu(b)


def norm_silu_arguments(
    tile: Tile,
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> dict[str, Any]:
    """The arguments of `_norm_silu_kernel`, with a new tensor for its result."""
    named = {"p_weight": weight, "p_bias": bias, "p_scale": scale, "p_shift": shift}
    return {
        "p_x": x.contiguous(), **{name: None if t is None else t.contiguous() for name, t in named.items()},
        "p_out": torch.empty(x.shape, dtype=x.dtype, device=x.device),
        "pixels": x.numel() // (x.shape[0] * x.shape[1]), "eps": eps,
        "GROUPS": groups, "WIDTH": x.shape[1] // groups, "BLOCK": tile.rows,
    }  # fmt: skip


def geglu_arguments(tile: Tile, x: Tensor) -> dict[str, Any]:
    """The arguments of `_geglu_kernel`, with a new tensor for its result."""
    width = x.shape[-1] // 2
    out = torch.empty((*x.shape[:-1], width), dtype=x.dtype, device=x.device)
    return {"p_x": x.contiguous(), "p_out": out, "WIDTH": width, "BLOCK": tile.rows}


def _norm_silu_implementation(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> Tensor:
    choice = choose("norm_silu", x)
    if choice.backend == "torch":
        return norm_silu_reference(x, groups, weight, bias, scale=scale, shift=shift, eps=eps).contiguous()
    from mezzotint_kernels._triton.norm import _norm_silu_kernel

    tile = choice.tile or Tile(min(512, power_of_two(x.numel() // (x.shape[0] * groups))))
    with on_device(x):
        arguments = norm_silu_arguments(tile, x, groups, weight, bias, scale, shift, eps)
        _norm_silu_kernel[(x.shape[0] * groups,)](
            **arguments, enable_fp_fusion=True, **tile.options(architecture(x.device))
        )
    return arguments["p_out"]


def _geglu_implementation(x: Tensor) -> Tensor:
    choice = choose("geglu", x)
    if choice.backend == "torch":
        return geglu_reference(x).contiguous()
    from mezzotint_kernels._triton.norm import _geglu_kernel

    width = x.shape[-1] // 2
    tile = choice.tile or Tile(min(512, power_of_two(width)))
    with on_device(x):
        arguments = geglu_arguments(tile, x)
        _geglu_kernel[(x.numel() // (2 * width) * -(-width // tile.rows),)](
            **arguments, enable_fp_fusion=True, **tile.options(architecture(x.device))
        )
    return arguments["p_out"]


def _norm_silu_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The reference's gradients, its forward worked out again."""
    x, weight, bias, scale, shift = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[i] for i in (0, 2, 3, 4, 5)]
    with torch.enable_grad():
        inputs = [
            None if t is None else t.detach().requires_grad_(need)
            for t, need in zip((x, weight, bias, scale, shift), wanted, strict=True)
        ]
        again = norm_silu_reference(
            inputs[0], ctx.groups, inputs[1], inputs[2], scale=inputs[3], shift=inputs[4], eps=ctx.eps
        )
    found = iter(torch.autograd.grad(again, [t for t, need in zip(inputs, wanted, strict=True) if need], gradient))
    of_x, of_weight, of_bias, of_scale, of_shift = (next(found) if need else None for need in wanted)
    return of_x, None, of_weight, of_bias, of_scale, of_shift, None


def _norm_silu_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.groups, weight, bias, scale, shift, ctx.eps = inputs
    ctx.save_for_backward(x, weight, bias, scale, shift)


def _geglu_backward(ctx: Any, gradient: Tensor) -> Tensor:
    with torch.enable_grad():
        x = ctx.saved_tensors[0].detach().requires_grad_()
        again = geglu_reference(x)
    return torch.autograd.grad(again, x, gradient)[0]


_norm_silu = register(
    "norm_silu",
    "(Tensor x, int groups, Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, float eps) -> Tensor",
    _norm_silu_implementation,
    lambda x, *rest: torch.empty(x.shape, dtype=x.dtype, device=x.device),
    _norm_silu_backward,
    _norm_silu_context,
)
_geglu = register(
    "geglu",
    "(Tensor x) -> Tensor",
    _geglu_implementation,
    lambda x: torch.empty((*x.shape[:-1], x.shape[-1] // 2), dtype=x.dtype, device=x.device),
    _geglu_backward,
    lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def _check_norm(
    x: Tensor,
    groups: int,
    parameters: dict[str, Tensor | None],
    modulations: dict[str, Tensor | None],
    eps: float,
) -> None:
    if x.dtype not in _FLOATS or x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"x must be [B, C, ...], floats, not empty; got {x.dtype} of shape {tuple(x.shape)}")
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups must divide x's {x.shape[1]} channels; got {groups}")
    if not eps >= 0:
        raise ValueError(f"eps must be 0 or more; got {eps}")
    wanted = {name: (tuple(x.shape[1:2]), t) for name, t in parameters.items()}
    wanted |= {name: (tuple(x.shape[:2]), t) for name, t in modulations.items()}
    for name, (shape, tensor) in wanted.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape or tensor.dtype not in _FLOATS:
            raise ValueError(
                f"{name} must hold floats of shape {shape}; got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}; wanted it on {x.device}, where x is")
