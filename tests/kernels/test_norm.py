"""Group norm with SiLU and the gated GELU: formulas in float64, gradients, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import geglu, norm_silu, normals


def numbers(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return normals(seed, shape, dtype=dtype)


def test_norm_silu_is_its_formula() -> None:
    x, scale, shift = numbers(1, 2, 6, 3, 5), numbers(2, 2, 6), numbers(3, 2, 6)
    weight, bias = numbers(4, 6), numbers(5, 6)
    got = norm_silu(x, 3, weight, bias, scale=scale, shift=shift, eps=1e-3)
    group = x.view(2, 3, -1)
    mean, variance = group.mean(-1, keepdim=True), group.var(-1, correction=0, keepdim=True)
    y = ((group - mean) / (variance + 1e-3).sqrt()).view(x.shape)
    y = y * weight[:, None, None] + bias[:, None, None]
    y = y * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    torch.testing.assert_close(got, y / (1 + (-y).exp()), rtol=1e-12, atol=1e-12)


def test_parameters_of_norm_silu_may_be_left_out() -> None:
    x = numbers(1, 2, 4, 7)
    one, zero = torch.ones(4, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)
    wanted = norm_silu(x, 2, one, zero[0], scale=zero, shift=zero)
    torch.testing.assert_close(norm_silu(x, 2, None, None), wanted, rtol=0, atol=1e-15)


def test_geglu_is_the_first_half_times_the_exact_gelu_of_the_second() -> None:
    x = numbers(1, 3, 4, 10)
    a, b = x[..., :5], x[..., 5:]
    wanted = a * b * 0.5 * (1 + torch.erf(b / 2**0.5))
    torch.testing.assert_close(geglu(x), wanted, rtol=0, atol=1e-14)


def test_the_ops_pass_opcheck() -> None:
    x = numbers(1, 2, 4, 3, dtype=torch.float32).requires_grad_()
    scale = numbers(2, 2, 4, dtype=torch.float32).requires_grad_()
    norm_silu(x, 2, None, None)  # registers
    op = torch.ops.mezzotint.norm_silu.default
    torch.library.opcheck(op, (x, 2, None, None, scale, None, 1e-5))
    torch.library.opcheck(torch.ops.mezzotint.geglu.default, (x.detach()[:, :, :2].requires_grad_(),))


def test_the_ops_gradients_are_the_references() -> None:
    x = numbers(1, 2, 4, 3, dtype=torch.float64).requires_grad_()
    weight, scale = numbers(2, 4).requires_grad_(), numbers(3, 2, 4).requires_grad_()
    op = torch.ops.mezzotint.norm_silu
    assert torch.autograd.gradcheck(lambda x, w, s: op(x, 2, w, None, s, None, 1e-5), (x, weight, scale)), (
        "norm_silu"
    )
    gated = numbers(4, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(torch.ops.mezzotint.geglu, (gated,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 4, dtype=torch.int64)}, r"x must be \[B, C, ...\], floats"),
        ({"x": torch.zeros(2, 4, 0)}, r"not empty; got torch.float32 of shape \(2, 4, 0\)"),
        ({"x": torch.zeros(4)}, r"shape \(4,\)"),
        ({"groups": 3}, "groups must divide x's 4 channels; got 3"),
        ({"groups": 0}, "got 0"),
        (
            {"weight": torch.zeros(3)},
            r"weight must hold floats of shape \(4,\); got torch.float32 of shape \(3,\)",
        ),
        ({"scale": torch.zeros(1, 4)}, r"scale must hold floats of shape \(2, 4\)"),
        ({"shift": torch.zeros(2, 4, device="meta")}, "shift is on meta; wanted it on cpu"),
        ({"eps": -1.0}, "eps must be 0 or more"),
    ],
)
def test_what_norm_silu_refuses_is_named(change: dict, message: str) -> None:
    arguments = {"x": torch.zeros(2, 4, 3), "groups": 2, "weight": None, "bias": None, **change}
    with pytest.raises(ValueError, match=message):
        norm_silu(**arguments)


@pytest.mark.parametrize("x", [torch.zeros(2, 3), torch.zeros(0, 4), torch.zeros(2, 4, dtype=torch.int32)])
def test_what_geglu_refuses_is_named(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"x must be \[..., 2 D\]"):
        geglu(x)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_on_a_gpu_the_error_is_at_most_twice_torchs(dtype: torch.dtype) -> None:
    from mezzotint_kernels.norm import geglu_reference, norm_silu_reference

    x = (30 + numbers(1, 2, 64, 33, 33)).to("cuda", dtype)
    weight = numbers(2, 64).to("cuda", dtype)
    exact = norm_silu_reference(x.double(), 32, weight.double(), None)
    theirs = norm_silu_reference(x, 32, weight, None)
    ours = norm_silu(x, 32, weight, None)
    assert (ours - exact).abs().max() <= 2 * (theirs - exact).abs().max() + 1e-5
    x = numbers(3, 5, 77, 640).to("cuda", dtype)
    exact, theirs = geglu_reference(x.double()), geglu_reference(x)
    assert (geglu(x) - exact).abs().max() <= 2 * (theirs - exact).abs().max() + 1e-5
