"""The kernels of `norm_silu` and `geglu` by Triton's interpreter, against float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mezzotint_kernels import geglu, norm_silu, normals
from mezzotint_kernels.norm import geglu_reference, norm_silu_reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 4, 5, 7), 2), ((1, 6, 16, 16), 3), ((1, 4, 25, 25), 2), ((3, 4), 4), ((1, 3, 2, 3, 4), 1)],
)
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_norm_silu(
    shape: tuple[int, ...], groups: int, mean: float, dtype: torch.dtype, bound: Callable[..., None]
) -> None:
    x = (mean + normals(1, shape)).to(dtype)
    weight, bias = (normals(i, (shape[1],), dtype=dtype) for i in (2, 3))
    scale, shift = (normals(i, shape[:2], dtype=dtype) for i in (4, 5))
    for options in ({"shift": shift}, {"scale": scale, "shift": shift}):
        exact = {name: t.double() for name, t in options.items()}
        bound(
            norm_silu(x, groups, weight, bias, **options),
            norm_silu_reference(x.double(), groups, weight.double(), bias.double(), **exact),
            norm_silu_reference(x, groups, weight, bias, **options),
        )


def test_parameters_may_be_left_out_and_strides_do_not_matter(bound: Callable[..., None]) -> None:
    x = normals(1, (2, 4, 6, 6)).transpose(1, 3)[:, :, ::2].to(memory_format=torch.channels_last)
    bound(
        norm_silu(x, 3, None, None),
        norm_silu_reference(x.double(), 3, None, None),
        norm_silu_reference(x, 3, None, None),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2,), (3, 10), (2, 3, 34), (2, 1300)])
def test_geglu(shape: tuple[int, ...], dtype: torch.dtype, bound: Callable[..., None]) -> None:
    x = normals(1, (1, *shape), dtype=dtype)[0] * 3
    bound(geglu(x), geglu_reference(x.double()), geglu_reference(x))


def test_gradients_are_the_references() -> None:
    x = normals(1, (2, 4, 5)).requires_grad_()
    scale = normals(2, (2, 4)).requires_grad_()
    ours = torch.autograd.grad(norm_silu(x, 2, None, None, scale=scale).square().sum(), (x, scale))
    theirs = torch.autograd.grad(norm_silu_reference(x, 2, None, None, scale=scale).square().sum(), (x, scale))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
