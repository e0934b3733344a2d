"""The attention kernels, forward and backward, by Triton's interpreter against the definition in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint_kernels import attention_with_lse
from mezzotint_kernels.dense import attention
from mezzotint_kernels.dense_launch import Call, launch_backward, launch_forward
from mezzotint_kernels.tiles import Tile

INF = math.inf
SMALL = Tile(16, 16)
"""So that a small case has several blocks of queries and of keys."""


def inputs(
    heads: int, queries: int, keys: int, size: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """q, k, v and a gradient of the output, as views of [1, N, H, D]."""
    generator = torch.Generator().manual_seed(queries + 1000 * keys + size)
    made = [torch.randn(1, n, heads, size, generator=generator) for n in (queries, keys, keys, queries)]
    return tuple(x.to(dtype).transpose(1, 2) for x in made)


def holes(*shape: int) -> Tensor:
    """A bias of normal numbers, a third of them -inf."""
    bias = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
    return bias.masked_fill(bias < -0.4, -INF)


def run(grad: Tensor, call: Call, tile: Tile | None = SMALL) -> tuple[Tensor, ...]:
    """out, lse, dq, dk, dv by the kernels."""
    out, lse = launch_forward(call, tile)
    return out, lse, *launch_backward(grad, call, out, lse, tile, tile)


def close(got: tuple[Tensor, ...], exact: tuple[Tensor, ...], tolerance: float = 3e-6) -> None:
    for a, b in zip(got, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (40, torch.float32),
        (40, torch.bfloat16),
        (64, torch.float16),
        (80, torch.bfloat16),
        (128, torch.float32),
        (160, torch.float16),
    ],
)
def test_output_and_gradients_are_within_twice_torchs_own_error(exact_attention, bound, size, dtype):
    q, k, v, grad = inputs(1, 63, 77, size, dtype)
    exact = exact_attention(q, k, v, grad=grad)
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out, lse = attention_with_lse(*leaves)
    got = (out.detach(), *torch.autograd.grad(out, leaves, grad))
    torchs = F.scaled_dot_product_attention(*leaves)
    theirs = (torchs.detach(), *torch.autograd.grad(torchs, leaves, grad))
    for ours, wanted, other in zip(got, (exact[0], *exact[2:]), theirs, strict=True):
        assert ours.dtype == dtype
        bound(ours, wanted, other)
    torch.testing.assert_close(lse.double(), exact[1], rtol=3e-6, atol=3e-6)


def test_heads_inside_or_outside_the_tokens_give_the_same_bits():
    q, k, v, grad = inputs(2, 33, 20, 40, torch.float16)
    inside = run(grad, Call(q, k, v, None, None, 0.2))
    packed = torch.zeros(1, 33, 3, 2, 40, dtype=torch.float16)
    packed[:, :, 1] = q.transpose(1, 2)
    view = packed[:, :, 1].transpose(1, 2)  # rows 240 apart
    outside = run(grad.contiguous(), Call(view, k.contiguous(), v.contiguous(), None, None, 0.2))
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a, b)
    assert inside[0].stride() == q.stride() and inside[3].stride() == k.stride()


def test_tensors_that_are_not_aligned_to_16_bytes_give_the_same_bits():
    q, k, v, grad = (x.contiguous() for x in inputs(1, 17, 20, 40, torch.float16))
    storage = torch.zeros(1, 1, 17, 43, dtype=torch.float16)
    crooked = storage[..., 3:]
    crooked.copy_(q)
    assert crooked.stride(2) % 8 and crooked.data_ptr() % 16
    for a, b in zip(
        run(grad, Call(q, k, v, None, None, 0.2)), run(grad, Call(crooked, k, v, None, None, 0.2)), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [20, 48])
def test_head_sizes_that_no_table_has_work_too(exact_attention, size):
    q, k, v, grad = inputs(1, 17, 20, size)
    close(run(grad, Call(q, k, v, None, None, 0.2)), exact_attention(q, k, v, scale=0.2, grad=grad))


FORMS = {
    "all scores": (holes(1, 2, 20, 37), None),
    "half precision, one for all heads": (holes(20, 37).half(), None),
    "rows of whole units": (holes(20, 48)[:, :37], None),
    "same for all queries": (holes(1, 2, 1, 37), None),
    "key bias": (None, holes(1, 37)),
    "both": (holes(1, 1, 20, 37), holes(1, 2, 37)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_biases_of_every_form_are_added_to_the_scores(exact_attention, form):
    q, k, v, grad = inputs(2, 20, 37, 40)
    close(run(grad, Call(q, k, v, *form, 0.3)), exact_attention(q, k, v, *form, 0.3, grad=grad))


@pytest.mark.parametrize("per_key", [False, True])
def test_a_first_block_of_keys_that_is_masked_out_leaves_no_trace(exact_attention, per_key):
    q, k, v, grad = inputs(1, 20, 40, 40)
    mask = torch.zeros(1, 40) if per_key else torch.zeros(20, 40)
    mask[:, :16] = -INF
    poisoned_k, poisoned_v = k.clone(), v.clone()
    poisoned_k[:, :, :16], poisoned_v[:, :, :16] = 1e4, 1e4
    biases = (None, mask) if per_key else (mask, None)
    got = run(grad, Call(q, poisoned_k, poisoned_v, *biases, 0.2))
    out, lse, dq, dk, dv = exact_attention(q, k[:, :, 16:], v[:, :, 16:], scale=0.2, grad=grad)
    close((got[0], got[1], got[2], got[3][:, :, 16:], got[4][:, :, 16:]), (out, lse, dq, dk, dv))
    assert not got[3][:, :, :16].any() and not got[4][:, :, :16].any()


@pytest.mark.parametrize("per_key", [False, True])
def test_a_query_that_may_look_at_nothing_gives_zeros_and_no_gradient(exact_attention, per_key):
    q, k, v, grad = inputs(1, 20, 21, 40)
    mask = torch.full((1, 21), -INF) if per_key else torch.zeros(20, 21).index_fill_(0, torch.tensor(3), -INF)
    biases = (None, mask) if per_key else (mask, None)
    got = run(grad, Call(q, k, v, *biases, 0.2))
    close(got, exact_attention(q, k, v, *biases, 0.2, grad=grad))
    lost = slice(None) if per_key else 3
    assert not got[0][:, :, lost].any() and not got[2][:, :, lost].any()
    assert bool((got[1][:, :, lost] == -INF).all())


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_of_ten_thousand_overflow_neither_forward_nor_backward(exact_attention, sign):
    """With all scores near -10,000 a key past the last would weigh exp(10,000) if it were not masked."""
    q = torch.full((1, 1, 5, 40), 16.0)
    k = torch.randint(14, 18, (1, 1, 21, 40), generator=torch.Generator().manual_seed(1)) * float(sign)
    _, _, v, grad = inputs(1, 5, 21, 40)
    exact = exact_attention(q, k, v, scale=1.0, grad=grad)
    assert exact[1].abs().min() > 9_000
    out, lse, dq, dk, dv = run(grad, Call(q, k, v, None, None, 1.0))
    close((out,), (exact[0],), 1e-3)
    close((lse,), (exact[1],), 3e-7)
    # p = exp(s - lse), and lse is rounded to 1e-3 at this size.
    for got, wanted in zip((dq, dk, dv), exact[2:], strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=5e-3 * max(1.0, float(wanted.abs().max())))


def test_one_query_and_one_key_give_the_value():
    q, k, v, grad = inputs(2, 1, 1, 64)
    out, lse, dq, dk, dv = run(grad, Call(q * 100, k, v, None, None, 1.0))
    assert torch.equal(out, v) and torch.equal(dv, grad)
    torch.testing.assert_close(lse, (q * 100 * k).sum(-1), rtol=1e-6, atol=1e-5)
    assert float(dq.abs().max()) < 1e-4 and float(dk.abs().max()) < 1e-2


def test_the_public_function_runs_the_kernels_here(exact_attention, monkeypatch):
    q, k, v, _ = inputs(2, 20, 37, 40)
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)
    close((attention(q, k, v),), exact_attention(q, k, v)[:1])
    with pytest.raises(ValueError, match="a bias that needs a gradient"):
        attention(q, k, v, bias=torch.zeros(20, 37, requires_grad=True))
    with pytest.raises(ValueError, match="float64"):
        attention(q.double(), k.double(), v.double())


def test_keys_shared_by_a_batch_need_no_copies(exact_attention):
    q, k, v, grad = inputs(2, 17, 20, 40)
    q2, grad2 = torch.cat([q, q * 2]), torch.cat([grad, grad])
    shared = Call(q2, k.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1), None, None, 0.2)
    copied = Call(q2, shared.k.contiguous(), shared.v.contiguous(), None, None, 0.2)
    for a, b in zip(run(grad2, shared)[:3], run(grad2, copied)[:3], strict=True):
        assert torch.equal(a, b)
