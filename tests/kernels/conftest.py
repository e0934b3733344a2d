"""Checks that the tests of every op share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

QUICK = ("test_schema", "test_autograd_registration", "test_faketensor")


@pytest.fixture
def opcheck() -> Callable[..., None]:
    """`opcheck("attention", (q, k, v, None, 0.5))`: the op is registered as torch.compile and autograd need it.

    It looks at the schema, the autograd key, and the fake's shapes, dtypes and strides against what the op gives.
    compiled: at gradients through AOTAutograd with unknown sizes too, which takes 0.3 s: once an op will do, with
        inputs that require gradients.
    """

    def check(op: str, args: tuple[Any, ...], *, compiled: bool = True) -> None:
        overload = getattr(torch.ops.mezzotint, op).default
        torch.library.opcheck(
            overload, args, test_utils=(*QUICK, "test_aot_dispatch_dynamic") if compiled else QUICK
        )

    return check


@pytest.fixture
def exact_attention() -> Callable[..., tuple[Tensor, ...]]:
    """`exact_attention(q, k, v, bias, key_bias, scale)`: (out, lse) in float64, written out from the definition.

    With `grad`, of out's shape, also dq, dk, dv. A query that may look at no key gives zeros, -inf, no gradient.
    """

    def exact(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None = None,
        key_bias: Tensor | None = None,
        scale: float | None = None,
        *,
        grad: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        q, k, v = (x.detach().double().requires_grad_(grad is not None) for x in (q, k, v))
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        if bias is not None:
            scores = scores + bias.double()
        if key_bias is not None:
            per_head = key_bias if key_bias.dim() == 3 else key_bias[:, None]
            scores = scores + per_head[:, :, None].double()
        alone = (scores == -float("inf")).all(-1, keepdim=True)
        out = scores.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0) @ v
        result = out.detach(), scores.detach().logsumexp(-1)
        return result if grad is None else (*result, *torch.autograd.grad(out, (q, k, v), grad.double()))

    return exact
