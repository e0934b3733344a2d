"""Attention over a table of rows, against concatenation in float64; on a GPU, the kernel by the same tests."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import attention_indexed, deduplicate, rows
from mezzotint_kernels.indexed import attention_indexed_reference

INF = math.inf
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])]
TABLE = torch.tensor([[0, 0, -1], [0, 1, 2], [2, -1, 1]])
WEIGHTS = torch.tensor([[0.0, 0.3, 9.0], [1.0, -INF, 0.5], [0.0, 0.0, -3.0]])


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    if request.param == "cuda":
        monkeypatch.setenv("MEZZOTINT_KERNELS", "triton")
    return request.param


def inputs(
    queries: int = 50,
    keys: int = 37,
    size: int = 40,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    *,
    samples: int = 3,
    frames: int = 3,
) -> tuple[Tensor, Tensor, Tensor]:
    """q [samples, 2, queries, size], k and v [frames, 2, keys, size], views of [B, N, H, D]."""
    generator = torch.Generator().manual_seed(queries + 1000 * keys + size)
    shapes = ((samples, queries), (frames, keys), (frames, keys))
    q, k, v = (torch.randn(*s, 2, size, generator=generator).to(device, dtype).transpose(1, 2) for s in shapes)
    return q, k, v


def concatenated(q: Tensor, k: Tensor, v: Tensor, table: Tensor, weights: Tensor | None = None) -> Tensor:
    """The definition, in float64: each sample's rows side by side, each key of slot s exp(weights[s]) times."""
    found = []
    for b, slots in enumerate(table.tolist()):
        pick = [s for s, row in enumerate(slots) if row >= 0]
        keys = torch.cat([k[slots[s]].double() for s in pick], 1)
        values = torch.cat([v[slots[s]].double() for s in pick], 1)
        often = torch.tensor(
            [1.0 if weights is None else math.exp(weights[b, s]) for s in pick], dtype=torch.float64
        )
        scores = (q[b].double() @ keys.mT * q.shape[-1] ** -0.5).exp()
        scores = scores * often.to(keys).repeat_interleave(k.shape[2])
        found.append(scores / scores.sum(-1, keepdim=True) @ values)
    return torch.stack(found)


def close(got: Tensor, exact: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(got.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_a_table_of_rows_is_their_concatenation(device, dtype, size):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the kernel has no float64")
    q, k, v = inputs(63, 50, size, dtype, device)
    got = attention_indexed(q, k, v, TABLE.to(device))
    assert got.dtype == dtype and got.stride() == q.stride()
    close(got, concatenated(q, k, v, TABLE), TOLERANCE[dtype])
    got = attention_indexed(q, k, v, TABLE.int().to(device), log_weight=WEIGHTS.to(device))
    close(got, concatenated(q, k, v, TABLE, WEIGHTS), TOLERANCE[dtype])


def test_rows_may_lie_anywhere_and_be_more_or_fewer_than_samples(device):
    q, k, v = inputs(33, 20, 64, torch.float32, device, samples=2, frames=5)
    table = torch.tensor([[4, 1], [2, 4]], device=device)
    wide = torch.randn(5, 2, 20, 71, generator=torch.Generator().manual_seed(1)).to(device)
    for keys in (k.contiguous(), wide[..., :64], wide[..., 3:67], k[:1].expand(5, -1, -1, -1)):
        got = attention_indexed(q, keys, v, table)
        close(got, concatenated(q, keys, v, table), TOLERANCE[torch.float32])


def test_a_slot_of_minus_one_or_of_no_weight_adds_nothing(device):
    q, k, v = inputs(20, 20, 64, torch.float32, device, samples=1)
    plain = attention_indexed(q, k, v, torch.tensor([[1]], device=device))
    k[2], v[2] = math.nan, math.nan
    for table, weights in (([-1, 1, -1], [0.0, 0.0, 0.0]), ([2, 1, 2], [-INF, 0.7, -INF])):
        got = attention_indexed(
            q, k, v, torch.tensor([table], device=device), log_weight=torch.tensor([weights], device=device)
        )
        close(got, plain.double(), 1e-6)


def test_a_sample_without_slots_is_zero(device):
    q, k, v = inputs(20, 20, 64, torch.float32, device, samples=2)
    got = attention_indexed(q, k, v, torch.tensor([[-1, -1], [0, 1]], device=device))
    assert torch.equal(got[0], torch.zeros_like(got[0]))
    assert bool(got[1].any())


def test_the_weight_is_a_natural_logarithm_of_how_often_a_row_counts(device):
    q, k, v = inputs(20, 20, 64, torch.float32, device, samples=1)
    repeated = attention_indexed(q, k, v, torch.tensor([[0, 2, 2, 2]], device=device))
    weights = torch.tensor([[0.0, math.log(3)]], device=device)
    got = attention_indexed(q, k, v, torch.tensor([[0, 2]], device=device), log_weight=weights)
    close(got, repeated.double(), 1e-6)


def test_repeated_rows_are_folded_into_their_weight():
    table, weights = deduplicate(torch.tensor([[0, 0, 3], [-1, 2, -1], [5, 1, 5]]))
    assert table.tolist() == [[0, -1, 3], [-1, 2, -1], [5, 1, -1]]
    two = math.log(2)
    torch.testing.assert_close(weights, torch.tensor([[two, 0, 0], [0, 0, 0], [two, 0, 0]]))


def test_a_table_without_repeats_gives_the_same_result(device):
    q, k, v = inputs(20, 37, 80, torch.float32, device)
    table = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 1, 2]], device=device)
    folded, weights = deduplicate(table)
    got = attention_indexed(q, k, v, folded, log_weight=weights)
    close(got, concatenated(q, k, v, table), TOLERANCE[torch.float32])


def test_gradients_are_those_of_the_concatenation(device, monkeypatch):
    dtype = torch.float64 if device == "cpu" else torch.float32
    q, k, v = (x.requires_grad_() for x in inputs(dtype=dtype, device=device))
    grad = torch.randn(3, 2, 50, 40, generator=torch.Generator().manual_seed(2)).to(q)
    wanted = torch.autograd.grad(concatenated(q, k, v, TABLE, WEIGHTS), (q, k, v), grad.double())
    for logits in (rows.BACKWARD_LOGITS, 1000):  # at once, and a few queries at a time
        monkeypatch.setattr(rows, "BACKWARD_LOGITS", logits)
        out = attention_indexed(q, k, v, TABLE.to(device), log_weight=WEIGHTS.to(device))
        for got, exact in zip(torch.autograd.grad(out, (q, k, v), grad), wanted, strict=True):
            close(got, exact.double(), TOLERANCE[dtype])


def test_half_precision_gradients_come_in_their_dtype():
    q, k, v = (x.requires_grad_() for x in inputs(dtype=torch.bfloat16))
    attention_indexed(q, k, v, TABLE).sum().backward()
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    concatenated(*exact, TABLE).sum().backward()
    for x, wanted in zip((q, k, v), exact, strict=True):
        assert x.grad.dtype == torch.bfloat16
        close(x.grad, wanted.grad, 1.6e-2)


def test_the_op_is_registered_as_autograd_and_the_compiler_need_it(device, opcheck):
    dtype = torch.float64 if device == "cpu" else torch.float32
    q, k, v = (x.requires_grad_() for x in inputs(dtype=dtype, device=device))
    opcheck("attention_indexed", (q, k, v, TABLE.to(device), WEIGHTS.to(device), 0.2))
    opcheck("attention_indexed", (q.contiguous(), k, v, TABLE.to(device), None, 0.2), compiled=False)


def test_a_compiled_call_is_the_call():
    q, k, v = inputs(dtype=torch.float32)
    compiled = torch.compile(attention_indexed, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v, TABLE), attention_indexed(q, k, v, TABLE))


@pytest.mark.slow
@pytest.mark.timeout(300)  # inductor builds its C++ headers once, which a busy machine takes minutes for
def test_inductor_compiles_forward_and_backward_in_one_graph():
    q, k, v = (x.requires_grad_() for x in inputs(dtype=torch.float32))

    def layer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_indexed(q * 2, k, v.transpose(1, 2).contiguous().transpose(1, 2), TABLE).square().sum()

    wanted = torch.autograd.grad(layer(q, k, v), (q, k, v))
    got = torch.autograd.grad(torch.compile(layer, fullgraph=True)(q, k, v), (q, k, v))
    for a, b in zip(got, wanted, strict=True):
        close(a, b.double(), 1e-5)


def test_the_reference_is_the_definition_too():
    q, k, v = inputs()
    close(
        attention_indexed_reference(q, k, v, TABLE, log_weight=WEIGHTS),
        concatenated(q, k, v, TABLE, WEIGHTS),
        1e-13,
    )


@pytest.mark.gpu
@no_gpu
def test_on_a_gpu_a_row_that_is_not_there_makes_its_sample_nan(monkeypatch):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "triton")
    q, k, v = inputs(dtype=torch.float16, device="cuda")
    got = attention_indexed(q, k, v, torch.tensor([[0, 3], [0, 1], [1, -2]], device="cuda"))
    assert bool(got[0].isnan().all() and got[2].isnan().all() and got[1].isfinite().all())


@pytest.mark.gpu
@no_gpu
def test_on_a_gpu_the_table_may_stay_on_the_cpu_and_is_checked_there(monkeypatch):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "triton")
    q, k, v = inputs(dtype=torch.float16, device="cuda")
    assert torch.equal(attention_indexed(q, k, v, TABLE), attention_indexed(q, k, v, TABLE.cuda()))
    with pytest.raises(ValueError, match="table has numbers from 0 to 3; wanted -1 to 2"):
        attention_indexed(q, k, v, torch.tensor([[0], [1], [3]]))


GOOD = dict(zip("qkv", inputs(samples=2), strict=True)) | {"table": torch.tensor([[0, 1], [2, -1]])}
BAD = {
    "no frames": ({"k": GOOD["k"][:0], "v": GOOD["v"][:0]}, r"k of shape \(0, 2, 37, 40\)"),
    "no keys": ({"k": GOOD["k"][:, :, :0]}, r"k of shape \(3, 2, 0, 40\)"),
    "three dimensions": ({"q": GOOD["q"][0]}, r"q of shape \(2, 50, 40\)"),
    "other dtype": ({"k": GOOD["k"].half()}, r"k is torch.float16 on cpu"),
    "integers": ({"q": GOOD["q"].long()}, r"q is torch.int64"),
    "columns apart": ({"q": GOOD["q"].mT.contiguous().mT}, "last dimension to lie together"),
    "other heads": ({"q": GOOD["q"][:, :1]}, "the same heads"),
    "other size": ({"q": GOOD["q"][..., :32]}, "the same heads and size"),
    "fewer values than keys": ({"v": GOOD["v"][:, :, :5]}, "as many keys as values"),
    "fewer rows of values": ({"v": GOOD["v"][:2]}, "k has 3 rows and v 2"),
    "a float table": ({"table": GOOD["table"].float()}, "table is torch.float32"),
    "no slots": ({"table": GOOD["table"][:, :0]}, r"table is torch.int64 \(2, 0\)"),
    "a row short": ({"table": GOOD["table"][:1]}, r"wanted int32 or int64 \[2, slots\]"),
    "a row too high": ({"table": GOOD["table"] + 1}, "table has numbers from 0 to 3; wanted -1 to 2"),
    "a row too low": ({"table": GOOD["table"] - 1}, "table has numbers from -2 to 1; wanted -1 to 2"),
    "weights of another shape": ({"log_weight": torch.zeros(2)}, r"wanted a floating dtype, \[2, 2\]"),
    "weights that are integers": ({"log_weight": torch.zeros(2, 2).long()}, "log_weight is torch.int64"),
    "weights that learn": ({"log_weight": torch.zeros(2, 2, requires_grad=True)}, "wanted log_weight.detach()"),
    "no scale": ({"scale": 0.0}, "scale is 0.0; wanted a finite number above 0"),
    "a scale that is no number": ({"scale": math.nan}, "scale is nan"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_what_was_wanted(name):
    given, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        attention_indexed(**(GOOD | given))


def test_a_table_that_is_none_cannot_be_folded():
    with pytest.raises(ValueError, match=r"wanted int32 or int64 \[samples, slots\]"):
        deduplicate(torch.tensor([0, 1]))
