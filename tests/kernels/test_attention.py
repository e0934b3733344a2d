"""Attention against its definition in float64, on the CPU and, where there is one, by the kernels on a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import attention_reference, attention_with_lse
from mezzotint_kernels.dense import attention
from mezzotint_kernels.dense_reference import backward_by_scores, forward_by_scores, joined_biases

INF = math.inf
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Of results of size 1: a few roundings of the dtype, five times the measured error of torch's own."""
LSE_TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 1e-4, torch.bfloat16: 1e-4}
"""Torch's attention takes a shorter exponential for the half types on a CPU: 2.5e-5."""

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    if request.param == "cuda":
        monkeypatch.setenv("MEZZOTINT_KERNELS", "triton")
    return request.param


def inputs(
    batch: int,
    heads: int,
    queries: int,
    keys: int,
    size: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v as views of [B, N, H, D]."""
    generator = torch.Generator().manual_seed(queries + 1000 * keys + size)
    made = [torch.randn(batch, n, heads, size, generator=generator) for n in (queries, keys, keys)]
    q, k, v = (x.to(device, dtype).transpose(1, 2) for x in made)
    return q, k, v


def holes(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """A bias of normal numbers, a third of them -inf."""
    bias = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
    return bias.masked_fill(bias < -0.4, -INF).to(device, dtype)


def close(got: Tensor, exact: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(got.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("queries", "keys", "size"), [(63, 77, 40), (1, 100, 64), (130, 1, 80), (65, 63, 160)])
def test_output_and_log_sum_exp_are_those_of_the_definition(device, exact_attention, dtype, queries, keys, size):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the kernels have no float64")
    q, k, v = inputs(2, 3, queries, keys, size, dtype, device)
    exact, exact_lse = exact_attention(q, k, v)
    out, lse = attention_with_lse(q, k, v)
    close(out, exact, TOLERANCE[dtype])
    close(attention(q, k, v), exact, TOLERANCE[dtype])
    close(lse, exact_lse, LSE_TOLERANCE[dtype])
    assert out.dtype == dtype and lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_gradients_are_those_of_the_definition(device, exact_attention, dtype, size):
    q, k, v = (x.requires_grad_() for x in inputs(1, 2, 50, 77, size, dtype, device))
    grad = inputs(1, 2, 50, 77, size, dtype, device)[0].flip(2)
    exact = exact_attention(q, k, v, grad=grad)[2:]
    for out in (attention(q, k, v), attention_with_lse(q, k, v).out):
        for got, wanted in zip(torch.autograd.grad(out, (q, k, v), grad), exact, strict=True):
            close(got, wanted, 2 * TOLERANCE[dtype])


FORMS = {
    "all scores": ((2, 3, 20, 37), None),
    "one for all heads": ((2, 1, 20, 37), None),
    "queries by keys": ((20, 37), None),
    "heads by keys": ((3, 1, 37), None),
    "keys": ((37,), None),
    "constant over keys": ((2, 1, 20, 1), None),
    "key bias": (None, (2, 37)),
    "key bias by head": (None, (1, 3, 37)),
    "both": ((1, 3, 20, 37), (2, 37)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_biases_of_every_form_are_added_to_the_scores(device, exact_attention, form):
    q, k, v = (x.requires_grad_() for x in inputs(2, 3, 20, 37, 40, device=device))
    bias, key_bias = (None if shape is None else holes(shape, device=device) for shape in form)
    grad = torch.ones_like(q)
    exact, exact_lse, *gradients = exact_attention(q, k, v, bias, key_bias, 0.3, grad=grad)
    out, lse = attention_with_lse(q, k, v, bias=bias, key_bias=key_bias, scale=0.3)
    close(out, exact, 3e-6)
    close(lse, exact_lse, 3e-6)
    close(attention(q, k, v, bias=bias, key_bias=key_bias, scale=0.3), exact, 3e-6)
    for got, wanted in zip(torch.autograd.grad(out, (q, k, v), grad), gradients, strict=True):
        close(got, wanted, 1e-5)


def test_a_query_that_may_look_at_nothing_gives_zeros_and_no_gradient(device):
    q, k, v = (x.requires_grad_() for x in inputs(1, 2, 5, 7, 40, device=device))
    bias = torch.zeros(5, 7, device=device)
    bias[2] = -INF
    out, lse = attention_with_lse(q, k, v, bias=bias)
    assert torch.equal(out[:, :, 2], torch.zeros_like(out[:, :, 2]))
    assert bool((lse[:, :, 2] == -INF).all()) and bool(lse[:, :, [0, 1, 3, 4]].isfinite().all())
    assert torch.equal(attention(q, k, v, bias=bias)[:, :, 2], torch.zeros_like(out[:, :, 2]))
    for result in (out, attention(q, k, v, bias=bias)):
        dq, dk, dv = torch.autograd.grad(result, (q, k, v), torch.ones_like(out))
        assert torch.equal(dq[:, :, 2], torch.zeros_like(dq[:, :, 2]))
        assert all(bool(x.isfinite().all()) for x in (dq, dk, dv))


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_of_ten_thousand_do_not_overflow(device, exact_attention, sign):
    """The products are whole numbers, so exact in float32: only the softmax can go wrong."""
    generator = torch.Generator().manual_seed(1)
    q = torch.full((1, 2, 9, 40), 16.0, device=device).requires_grad_()
    k = torch.randint(14, 18, (1, 2, 37, 40), generator=generator).to(device, torch.float32) * sign
    v = torch.randn(1, 2, 37, 40, generator=generator).to(device)
    exact, exact_lse, dq, *_ = exact_attention(q, k, v, scale=1.0, grad=torch.ones_like(v[:, :, :9]))
    assert exact_lse.abs().min() > 9_000
    out, lse = attention_with_lse(q, k, v, scale=1.0)
    close(out, exact, 1e-5)
    torch.testing.assert_close(lse.double(), exact_lse, rtol=2e-7, atol=0)
    # p = exp(s - lse), and lse is rounded to 1e-3 at this size: so much has any flash attention's gradient.
    (got,) = torch.autograd.grad(out, q, torch.ones_like(out))
    torch.testing.assert_close(got.double(), dq, rtol=0, atol=2e-3 * float(k.abs().max()))


def test_one_key_gives_its_value_whatever_the_scores(device):
    q, k, v = inputs(2, 2, 33, 1, 64, device=device)
    assert torch.equal(attention(q * 1e3, k, v), v.expand_as(q))
    assert torch.equal(attention_with_lse(q * 1e3, k, v).out, v.expand_as(q))


def test_layouts_make_no_difference(device):
    """Heads inside the tokens, outside them, packed with the others, keys shared by the whole batch."""
    q, k, v = inputs(2, 3, 33, 33, 40, device=device)
    packed = torch.stack([x.transpose(1, 2) for x in (q, k, v)], dim=2)  # [B, N, 3, H, D]
    wanted = attention_with_lse(q.contiguous(), k.contiguous(), v.contiguous())
    assert wanted.out.is_contiguous()
    for views in ((q, k, v), tuple(x.transpose(1, 2) for x in packed.unbind(2))):
        got = attention_with_lse(*views)
        assert torch.equal(got.out, wanted.out) and torch.equal(got.lse, wanted.lse)
        assert got.out.transpose(1, 2).is_contiguous()
        assert torch.equal(attention(*views), wanted.out)
    shared = attention(q, k[:1].expand_as(k), v[:1].expand_as(v))
    assert torch.equal(shared[0], wanted.out[0])


def test_results_over_parts_of_the_keys_merge_by_their_log_sum_exps(device, exact_attention):
    q, k, v = inputs(1, 2, 20, 50, 64, device=device)
    exact, _ = exact_attention(q, k, v)
    (a, lse_a), (b, lse_b) = (
        attention_with_lse(q, k[:, :, part], v[:, :, part]) for part in (slice(31), slice(31, 50))
    )
    share = torch.sigmoid(lse_a - lse_b)[..., None]
    close(share * a + (1 - share) * b, exact, 3e-6)


def test_a_bias_gets_its_gradient_from_attention_and_an_error_from_the_op():
    q, k, v = inputs(1, 2, 5, 7, 40, torch.float64)
    bias = torch.randn(1, 2, 5, 7, dtype=torch.float64, requires_grad=True)
    key_bias = torch.randn(1, 7, dtype=torch.float64, requires_grad=True)
    p = (q @ k.mT * 40**-0.5 + bias + key_bias).softmax(-1)
    wanted = torch.autograd.grad((p @ v).square().sum(), (bias, key_bias))
    out = attention(q, k, v, bias=bias, key_bias=key_bias)
    for got, exact in zip(torch.autograd.grad(out.square().sum(), (bias, key_bias)), wanted, strict=True):
        close(got, exact, 1e-12)
    with pytest.raises(ValueError, match=r"no gradient for bias.*wanted bias\.detach\(\)"):
        attention_with_lse(q, k, v, bias=bias)
    attention_with_lse(q, k, v, bias=bias.detach())


def test_forcing_the_kernel_with_a_bias_that_needs_a_gradient_is_an_error(monkeypatch):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "triton")
    q, k, v = inputs(1, 2, 5, 7, 40)
    with pytest.raises(ValueError, match="a bias that needs a gradient"):
        attention(q, k, v, key_bias=torch.zeros(1, 7, requires_grad=True))


def test_the_reference_and_attention_on_a_cpu_are_the_same_call():
    q, k, v = inputs(1, 2, 20, 37, 40)
    bias = holes((20, 37))
    assert torch.equal(attention(q, k, v, bias=bias), attention_reference(q, k, v, bias=bias))


def test_what_runs_where_torch_has_no_flash_attention_agrees_with_the_definition(exact_attention):
    q, k, v = inputs(1, 2, 20, 37, 40)
    mask = joined_biases(q, holes((20, 37)), None)
    mask[..., 3, :] = -INF
    grad = torch.ones_like(q)
    exact, exact_lse, *gradients = exact_attention(q, k, v, mask, scale=0.2, grad=grad)
    out, lse = forward_by_scores(q, k, v, mask, 0.2)
    close(out, exact, 3e-6)
    close(lse, exact_lse, 3e-6)
    lse = lse.masked_fill(lse == -INF, 0.0)
    for got, wanted in zip(backward_by_scores(grad, q, k, v, out, lse, mask, 0.2), gradients, strict=True):
        close(got, wanted, 1e-5)


@pytest.mark.parametrize("biased", [False, True])
def test_the_ops_pass_torchs_own_checks(opcheck, biased):
    q, k, v = (x.requires_grad_() for x in inputs(2, 2, 5, 7, 16))
    bias, key_bias = (holes((5, 7)), torch.zeros(2, 7)) if biased else (None, None)
    opcheck("attention", (q, k, v, bias, key_bias, 0.25))
    q, k, v = (x.detach().contiguous() for x in (q, k, v))
    out, lse = attention_with_lse(q, k, v, bias=bias, key_bias=key_bias, scale=0.25)
    backward = (torch.ones_like(q), q, k, v, out, lse, bias, key_bias, 0.25)
    opcheck("attention_backward", backward, compiled=False)


def _compiled_agrees(backend: str) -> None:
    torch._dynamo.reset()
    q, k, v = (x.requires_grad_() for x in inputs(1, 2, 33, 20, 40))
    bias = holes((33, 20))

    def both(q, k, v, bias):
        out, lse = attention_with_lse(q * 2, k, v, bias=bias)
        return attention(q * 2, k, v) + out, lse * 2

    wanted, wanted_lse = both(q, k, v, bias)
    out, lse = torch.compile(both, fullgraph=True, backend=backend)(q, k, v, bias)
    close(out, wanted.double(), 3e-6)
    close(lse, wanted_lse.double(), 3e-6)
    theirs = torch.autograd.grad(wanted.sum(), (q, k, v))
    for got, own in zip(torch.autograd.grad(out.sum(), (q, k, v)), theirs, strict=True):
        close(got, own.double(), 1e-5)


def test_both_are_traced_as_one_graph_with_their_gradients():
    _compiled_agrees("aot_eager")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_compiled_code_lays_out_memory_as_the_ops_do():
    _compiled_agrees("inductor")


def _q(*shape: int, **options) -> Tensor:
    return torch.zeros(shape, **options)


GOOD = _q(1, 2, 5, 40)
BAD = {
    "three dimensions": (dict(q=_q(2, 5, 40)), r"q, k, v of shapes \(2, 5, 40\).*wanted \[B, H, M, D\]"),
    "no queries": (dict(q=_q(1, 2, 0, 40)), r"\(1, 2, 0, 40\).*no dimension 0"),
    "no keys": (dict(k=_q(1, 2, 0, 40), v=_q(1, 2, 0, 40)), "no dimension 0"),
    "no batch": (dict(q=_q(0, 2, 5, 40), k=_q(0, 2, 5, 40), v=_q(0, 2, 5, 40)), "no dimension 0"),
    "other heads": (dict(k=_q(1, 4, 5, 40), v=_q(1, 4, 5, 40)), r"\(1, 4, 5, 40\)"),
    "more values than keys": (dict(v=_q(1, 2, 6, 40)), r"\(1, 2, 6, 40\)"),
    "whole numbers": (dict(q=GOOD.int(), k=GOOD.int(), v=GOOD.int()), "torch.int32 on cpu.*one floating dtype"),
    "two dtypes": (dict(k=GOOD.half()), "torch.float16 on cpu.*one floating dtype"),
    "two devices": (dict(v=GOOD.to("meta")), "on meta.*on one device"),
    "strided last dimension": (dict(q=_q(1, 2, 40, 5).mT), r"\(400, 200, 1, 5\).*stride 1.*contiguous"),
    "bias of another size": (dict(bias=_q(5, 6)), r"bias of shape \(5, 6\); wanted.*\[1, 2, 5, 5\]"),
    "bias of five dimensions": (dict(bias=_q(1, 1, 2, 5, 5)), r"bias of shape \(1, 1, 2, 5, 5\)"),
    "scalar bias": (dict(bias=_q()), r"bias of shape \(\)"),
    "yes and no": (dict(bias=_q(5, 5).bool()), "bias is torch.bool on cpu.*a mask is 0.*and -inf"),
    "bias elsewhere": (dict(bias=_q(5, 5, device="meta")), "bias is torch.float32 on meta"),
    "key bias of another size": (dict(key_bias=_q(1, 1)), r"key_bias of shape \(1, 1\); wanted \[B, N\].*N = 5"),
    "key bias of one dimension": (dict(key_bias=_q(5)), r"key_bias of shape \(5,\)"),
    "scale of zero": (dict(scale=0.0), "scale is 0.0; wanted a finite number above 0"),
    "negative scale": (dict(scale=-1.0), "scale is -1.0"),
    "scale that is no number": (dict(scale=math.nan), "scale is nan"),
}


@pytest.mark.parametrize(("changed", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_with_what_was_wanted_and_what_came(changed, message):
    arguments = {"q": GOOD, "k": GOOD, "v": GOOD, **changed}
    for function in (attention, attention_with_lse, attention_reference):
        with pytest.raises(ValueError, match=message):
            function(**arguments)
