"""The repairs of Triton's interpreter, and this folder's own fixtures: what the other tests here rely on."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from mezzotint_kernels.dispatch import choose

SIZE = 16


@triton.jit
def plus(b_x, b_y):
    return b_x + b_y


@triton.jit
def _dot_kernel(p_a, p_b, p_product, p_sum, N: tl.constexpr):
    o_n = tl.arange(0, N)
    o_ab = o_n[:, None] * N + o_n[None, :]
    b_a = tl.load(p_a + o_ab)  # [N, N]
    b_b = tl.load(p_b + o_ab)  # [N, N]
    tl.store(p_product + o_ab, tl.dot(b_a, b_b).to(p_product.dtype.element_ty))
    tl.store(p_sum + o_ab, plus(b_a, b_b))


@triton.jit
def _copy_kernel(p_x, p_out, N: tl.constexpr, TOO_MANY: tl.constexpr):
    o_n = tl.arange(0, N)
    tl.store(p_out + o_n, tl.load(p_x + o_n).to(p_out.dtype.element_ty), mask=o_n < N + TOO_MANY)
    if TOO_MANY:
        tl.store(p_out + N, 1.0)


@triton.jit
def _log_kernel(p_x, p_out, N: tl.constexpr):
    o_n = tl.arange(0, N)
    b_x = tl.load(p_x + o_n)
    tl.store(p_out + o_n, tl.log(b_x) - tl.max(tl.log(b_x), 0))


def squares(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, SIZE, SIZE, generator=made).to(dtype)
    return a, b


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_product_and_a_sum_are_those_of_the_dtype(dtype, guarded, bound):
    a, b = squares(dtype)
    product, total = guarded(a.shape, dtype), guarded(a.shape, dtype)
    _dot_kernel[(1,)](a, b, product, total, N=SIZE)
    bound(product, a.double() @ b.double(), a @ b)
    assert torch.equal(total, a + b)


def test_a_cast_to_bfloat16_rounds_to_nearest_even():
    x = torch.randn(4096) * torch.randn(4096).mul(20).exp()
    x[:5] = torch.tensor([1.998, 1.00390625, 1.01171875, float("inf"), -float("inf")])
    out = torch.empty(4096, dtype=torch.bfloat16)
    _copy_kernel[(1,)](x, out, N=4096, TOO_MANY=0)
    assert torch.equal(out, x.bfloat16())


def test_infinities_and_nan_are_numbers_like_others():
    out = torch.empty(4)
    _log_kernel[(1,)](torch.tensor([0.0, 1.0, 2.0, 4.0]), out, N=4)
    assert out[0] == -torch.inf and out[3] == 0
    _log_kernel[(1,)](torch.tensor([-1.0, 1.0, 2.0, 4.0]), out, N=4)
    assert out[0].isnan()


@pytest.mark.parametrize("make", [torch.empty, torch.Tensor.new_empty], ids=["empty", "new_empty"])
def test_an_output_that_is_overstepped_is_found(make, guarded):
    out = make(8) if make is torch.empty else torch.zeros(1).new_empty(8)
    assert out.isnan().all() and out.storage_offset() > 0
    _copy_kernel[(1,)](torch.ones(8), out, N=8, TOO_MANY=0)
    guarded.check()
    _copy_kernel[(1,)](torch.ones(8), out, N=8, TOO_MANY=1)
    with pytest.raises(AssertionError, match="outside its output"):
        guarded.check()
    guarded.forget()


def test_an_output_keeps_the_strides_that_were_asked_for(guarded):
    assert torch.empty_strided((3, 5), (1, 3)).stride() == (1, 3)
    assert torch.empty_like(torch.zeros(5, 3).t()).stride() == (1, 3)
    assert guarded((2, 3, 4), torch.int32).stride() == (12, 4, 1)
    assert torch.empty(2, 0).shape == (2, 0)


def test_the_bound_allows_twice_torchs_error_and_no_more(bound):
    exact = torch.tensor([0.0, -torch.inf], dtype=torch.float64)
    theirs = torch.tensor([0.1, -torch.inf])
    bound(torch.tensor([0.2, -torch.inf]), exact, theirs)
    with pytest.raises(AssertionError, match=r"largest error 0\.21"):
        bound(torch.tensor([0.21, -torch.inf]), exact, theirs)
    with pytest.raises(AssertionError, match="unwritten"):
        bound(torch.tensor([torch.nan, -torch.inf]), exact, theirs)
    with pytest.raises(AssertionError):
        bound(torch.tensor([0.0, 1e30]), exact, theirs)


def test_the_choice_is_the_interpreter_and_float64_is_refused():
    assert choose("attention", torch.zeros(1), head_dim=40).backend == "interpret"
    with pytest.raises(ValueError, match="attention cannot run in Triton's interpreter: float64"):
        choose("attention", torch.zeros(1, dtype=torch.float64))


LATE = """
import os, torch, triton.language as tl  # Triton's library is decorated for the compiler by this
{before}
os.environ["MEZZOTINT_KERNELS"] = "interpret"
from mezzotint_kernels import normals
from mezzotint_kernels.dispatch import choose
choose("normals", torch.zeros(1))
from triton.runtime.interpreter import InterpretedFunction
assert isinstance(tl.sum, InterpretedFunction) and not isinstance(tl.tensor.sum, InterpretedFunction)
"""


def run_late(before: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LATE.format(before=before)]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})


def test_triton_may_have_been_imported_before():
    done = run_late("")
    assert done.returncode == 0, done.stderr


def test_kernels_that_were_made_for_the_compiler_cannot_be_interpreted():
    done = run_late("import mezzotint_kernels._triton.philox")
    assert "interpret came too late: mezzotint_kernels._triton.philox was imported for the compiler" in done.stderr
