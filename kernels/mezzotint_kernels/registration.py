"""Ops in torch's dispatcher, under `mezzotint::`, so that autograd, torch.compile and opcheck know them.

They are defined by `torch.library.Library` and not by `custom_op`: a U-Net makes some seventy attention
calls a pass, and a call of an op made by `custom_op` costs several times as much before it does anything.
For the same reason a call that needs no gradient goes below the autograd wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["library", "register"]

library = torch.library.Library("mezzotint", "FRAGMENT")


def register(
    name: str,
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register an op for all devices and return what calls it, with positional arguments only.

    name, schema: "attention" and "(Tensor q, Tensor k, float scale) -> Tensor".
    implementation: asks `choose` and calls the reference or the kernel. No output may be an input or share
        memory with one, and inputs are not written to.
    fake: outputs of the same shapes, dtypes, devices and strides as the implementation's, without
        computing them; torch.compile lays out memory by it.
    backward(ctx, *gradients), setup_context(ctx, inputs, output): as in torch.library.register_autograd.
        Without them the op has no gradient, and asking for one is an error. There are no forward derivatives.
    """
    library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, implementation, "CompositeExplicitAutograd")
    qualified = f"{library.ns}::{name}"
    torch.library.register_fake(qualified, fake, lib=library)
    if backward is None:
        backward = _no_gradient(name)
    torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=library)
    return _caller(getattr(getattr(torch.ops, library.ns), name).default)


def _no_gradient(name: str) -> Callable[..., Any]:
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError(
            f"mezzotint::{name} has no gradient; call it under torch.no_grad() or detach its inputs"
        )

    return backward


def _caller(overload: Callable[..., Any]) -> Callable[..., Any]:
    """The op, entered below autograd where nothing is to be differentiated: half of the overhead is there."""

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or _wants_gradient(args):
            return overload(*args)  # inference mode leaves autograd out by itself
        with torch._C._AutoDispatchBelowAutograd():
            return overload(*args)

    return call


def _wants_gradient(args: tuple[Any, ...]) -> bool:
    if not torch.is_grad_enabled():
        return False
    for arg in args:
        if isinstance(arg, Tensor):
            if arg.requires_grad:
                return True
        elif isinstance(arg, (list, tuple)) and _wants_gradient(tuple(arg)):
            return True
    return False
