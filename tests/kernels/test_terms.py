"""Attention in terms against the sum written out in float64, and the uses it has; on a GPU, the kernel too."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import attention_indexed, attention_terms, rows
from mezzotint_kernels.terms import attention_terms_reference

INF = math.inf
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    if request.param == "cuda":
        monkeypatch.setenv("MEZZOTINT_KERNELS", "triton")
    return request.param


def inputs(
    queries: int = 50, keys: int = 37, size: int = 40, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """q [3, 2, queries, size], k [5, 2, keys, size], v [4, 2, keys, size], views of [B, N, H, D]."""
    generator = torch.Generator().manual_seed(queries + 1000 * keys + size)
    shapes = ((3, queries), (5, keys), (4, keys))
    q, k, v = (torch.randn(*s, 2, size, generator=generator).to(device, dtype).transpose(1, 2) for s in shapes)
    return q, k, v


def everything(queries: int, device: str = "cpu", *, per_sample: bool = False) -> dict[str, Any]:
    """Four samples of three terms of two slots, with every option: nothing, all slots, missing terms and slots."""
    generator = torch.Generator().manual_seed(queries)
    found = {
        "q_rows": torch.tensor([[0, 2, 1], [-1, 1, 1], [2, -1, -1], [-1, -1, 0]]),
        "table": torch.tensor(
            [
                [[0, 1], [4, -1], [2, 2]],
                [[1, 1], [3, 0], [-1, 4]],
                [[4, 3], [0, 0], [0, 0]],
                [[0, 0], [1, 1], [-1, -1]],
            ]
        ),
        "value_table": torch.tensor(
            [
                [[0, 1], [2, -1], [3, 0]],
                [[1, 1], [3, 0], [-1, 3]],
                [[0, 3], [0, 0], [0, 0]],
                [[0, 0], [1, 1], [1, 1]],
            ]
        ),
        "weights": torch.randn(4, 3, generator=generator),
        "masks": torch.rand(*((4,) if per_sample else ()), 3, queries, generator=generator),
        "log_weight": torch.randn(4, 3, 2, generator=generator),
        "lengths": torch.tensor([37, 5, 1, 20, 36]),
    }
    found["log_weight"][1, 1, 1] = -INF
    return {name: tensor.to(device) for name, tensor in found.items()}


def written_out(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_rows: Tensor,
    table: Tensor,
    *,
    value_table: Tensor | None = None,
    weights: Tensor | None = None,
    masks: Tensor | None = None,
    log_weight: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The definition, in float64: each term's rows side by side, its softmax, its weight, and their sum."""
    values = table if value_table is None else value_table
    samples, terms, slots = table.shape
    out = [torch.zeros(q.shape[1:], dtype=torch.float64, device=q.device) for _ in range(samples)]
    for b in range(samples):
        for t in range(terms):
            scores, found = [], []
            for s in range(slots):
                key, value = int(table[b, t, s]), int(values[b, t, s])
                if key < 0 or q_rows[b, t] < 0:
                    continue
                n = k.shape[2] if lengths is None else int(lengths[key])
                often = 1.0 if log_weight is None else math.exp(float(log_weight[b, t, s]))
                logits = q[q_rows[b, t]].double() @ k[key, :, :n].double().mT * q.shape[-1] ** -0.5
                scores.append(logits.exp() * often)
                found.append(v[value, :, :n].double())
            if scores:
                p = torch.cat(scores, -1)
                term = p / p.sum(-1, keepdim=True) @ torch.cat(found, 1)
                term = term * (1.0 if weights is None else weights[b, t].double())
                if masks is not None:
                    term = term * (masks[t] if masks.dim() == 2 else masks[b, t]).double()[:, None]
                out[b] = out[b] + term
    return torch.stack(out)


def close(got: Tensor, exact: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(got.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_the_result_is_the_weighted_sum_of_the_softmaxes(device, dtype, size):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the kernel has no float64")
    q, k, v = inputs(50, 37, size, dtype, device)
    for per_sample in (False, True):
        options = everything(50, device, per_sample=per_sample)
        got = attention_terms(q, k, v, **options)
        assert got.dtype == dtype and got.stride() == (q.stride(0), *q.stride()[1:])
        close(got, written_out(q, k, v, **options), TOLERANCE[dtype])
    plain = {"q_rows": options["q_rows"], "table": options["table"].clamp(max=3)}
    got = attention_terms(q, k[:4].contiguous(), v, **plain)
    close(got, written_out(q, k[:4], v, **plain), TOLERANCE[dtype])


@pytest.mark.parametrize("option", ["weights", "masks", "log_weight", "lengths"])
def test_each_option_works_without_the_others(device, option):
    q, k, v = inputs(20, 37, 64, torch.float32, device)
    options = everything(20, device)
    options = {name: options[name] for name in ("q_rows", "table", "value_table", option)}
    close(attention_terms(q, k, v, **options), written_out(q, k, v, **options), TOLERANCE[torch.float32])


def test_a_sample_without_a_key_is_zero(device):
    q, k, v = inputs(20, 37, 64, torch.float32, device)
    lengths = torch.tensor([37, 0, 37, 37], device=device)
    for q_row, row in ((-1, 0), (0, -1), (0, 1)):
        q_rows, table = torch.tensor([[q_row]], device=device), torch.tensor([[[row]]], device=device)
        got = attention_terms(q, k[:4].contiguous(), v, q_rows, table, lengths=lengths)
        assert torch.equal(got, torch.zeros_like(got))


def test_keys_behind_a_rows_length_are_not_looked_at(device):
    q, k, v = inputs(20, 37, 64, torch.float32, device)
    k[0, :, 5:], v[0, :, 5:] = math.nan, math.nan
    tables = (torch.tensor([[0]], device=device), torch.tensor([[[0]]], device=device))
    lengths = torch.tensor([5, 37, 37, 37], device=device)
    got = attention_terms(q, k[:4], v, *tables, lengths=lengths)
    close(got, written_out(q, k[:4], v, *tables, lengths=lengths), TOLERANCE[torch.float32])


def test_one_term_is_attention_over_a_table_of_rows(device):
    q, k, v = inputs(20, 37, 80, torch.float32, device)
    table = torch.tensor([[0, 0], [0, 1], [1, 2]], device=device)
    got = attention_terms(q, k[:4], v, torch.arange(3, device=device)[:, None], table[:, None])
    close(got, attention_indexed(q, k[:4], v, table).double(), 1e-6)


def test_prompt_to_prompt_takes_the_sources_map_and_the_edits_values(device):
    q, k, v = inputs(20, 20, 64, torch.float32, device)
    q_rows, table = torch.tensor([[0], [0]], device=device), torch.tensor([[[0]], [[0]]], device=device)
    got = attention_terms(q, k, v, q_rows, table, value_table=torch.tensor([[[0]], [[1]]], device=device))
    source = (q[0].double() @ k[0].double().mT / 8).softmax(-1)
    close(got, torch.stack([source @ v[0].double(), source @ v[1].double()]), TOLERANCE[torch.float32])


def test_an_image_prompt_is_a_second_softmax_at_its_strength(device):
    q, k, v = inputs(20, 37, 64, torch.float32, device)
    k, v = k[:4], v  # rows 0 and 1: words; rows 2 and 3: pictures of four tokens
    q_rows = torch.tensor([[0, 0], [1, 1]], device=device)
    table = torch.tensor([[[0], [2]], [[1], [3]]], device=device)
    got = attention_terms(
        q, k, v, q_rows, table,
        weights=torch.tensor([[1.0, 0.6], [1.0, 0.6]], device=device),
        lengths=torch.tensor([37, 37, 4, 4], device=device),
    )  # fmt: skip
    for b in range(2):
        qb, kb, vb = q[b].double(), k.double(), v.double()
        words = (qb @ kb[b].mT / 8).softmax(-1) @ vb[b]
        picture = (qb @ kb[b + 2, :, :4].mT / 8).softmax(-1) @ vb[b + 2, :, :4]
        close(got[b], words + 0.6 * picture, TOLERANCE[torch.float32])


def test_regional_prompts_give_each_pixel_its_own_prompt(device):
    q, k, v = inputs(20, 37, 64, torch.float32, device)
    left = (torch.arange(20, device=device) < 7).float()
    q_rows, table = torch.tensor([[0, 0]], device=device), torch.tensor([[[0], [1]]], device=device)
    got = attention_terms(q, k[:4], v, q_rows, table, masks=torch.stack([left, 1 - left]))
    alone = attention_terms(q, k[:4], v, torch.tensor([[0], [0]], device=device), table.transpose(0, 1))
    assert torch.equal(got[0, :, :7], alone[0, :, :7])
    assert torch.equal(got[0, :, 7:], alone[1, :, 7:])


def test_gradients_are_those_of_the_sum(device, monkeypatch):
    dtype = torch.float64 if device == "cpu" else torch.float32
    q, k, v = (x.requires_grad_() for x in inputs(dtype=dtype, device=device))
    options = everything(50, device)
    grad = torch.randn(4, 2, 50, 40, generator=torch.Generator().manual_seed(2)).to(q)
    wanted = torch.autograd.grad(written_out(q, k, v, **options), (q, k, v), grad.double())
    for logits in (rows.BACKWARD_LOGITS, 1000):  # at once, and a few queries at a time
        monkeypatch.setattr(rows, "BACKWARD_LOGITS", logits)
        out = attention_terms(q, k, v, **options)
        for got, exact in zip(torch.autograd.grad(out, (q, k, v), grad), wanted, strict=True):
            close(got, exact.double(), 3 * TOLERANCE[dtype])


def test_the_ops_are_registered_as_autograd_and_the_compiler_need_them(device, opcheck):
    dtype = torch.float64 if device == "cpu" else torch.float32
    q, k, v = (x.requires_grad_() for x in inputs(dtype=dtype, device=device))
    options = tuple(everything(50, device).values())
    opcheck("attention_terms", (q, k, v, *options, 0.2))
    opcheck("attention_terms", (q.contiguous(), k, v, *options[:3], *[None] * 4, 0.2), compiled=False)
    plain = tuple(x.detach() for x in (q, k, v))
    opcheck("attention_terms_backward", (torch.ones_like(q[[0, 0, 0, 0]]), *plain, *options, 0.2), compiled=False)


def test_a_compiled_call_is_the_call():
    q, k, v = inputs(dtype=torch.float32)
    compiled = torch.compile(attention_terms, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v, **everything(50)), attention_terms(q, k, v, **everything(50)))


def test_the_reference_is_the_definition_too():
    q, k, v = inputs()
    close(attention_terms_reference(q, k, v, **everything(50)), written_out(q, k, v, **everything(50)), 1e-13)


@pytest.mark.gpu
@no_gpu
@pytest.mark.parametrize(
    ("name", "wrong"), [("q_rows", 3), ("table", 5), ("value_table", -2), ("lengths", 38), ("lengths", -1)]
)
def test_on_a_gpu_a_number_that_names_no_row_makes_its_sample_nan(monkeypatch, name, wrong):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "triton")
    q, k, v = inputs(dtype=torch.float16, device="cuda")
    options = everything(50, "cuda")
    options[name].view(-1)[0] = wrong
    got = attention_terms(q, k, v, **options)
    assert bool(got[0].isnan().all() and got[3].isfinite().all())


GOOD = dict(zip("qkv", inputs(), strict=True)) | everything(50)
BAD = {
    "no samples": ({"q_rows": GOOD["q_rows"][:0]}, r"q_rows is torch.int64 \(0, 3\)"),
    "no terms": ({"q_rows": GOOD["q_rows"][:, :0]}, r"q_rows is torch.int64 \(4, 0\)"),
    "rows in one dimension": ({"q_rows": GOOD["q_rows"][0]}, r"wanted int32 or int64 \[samples, terms\]"),
    "no slots": ({"table": GOOD["table"][..., :0]}, r"table is torch.int64 \(4, 3, 0\)"),
    "a table of other terms": ({"table": GOOD["table"][:, :2]}, r"wanted int32 or int64 \[4, 3, slots\]"),
    "a float table": ({"table": GOOD["table"].float()}, "table is torch.float32"),
    "other value slots": ({"value_table": GOOD["table"][..., :1]}, r"value_table is .*; wanted .* \[4, 3, 2\]"),
    "rows of v not named": ({"value_table": None}, "k has 5 rows and v 4; .* or a value_table"),
    "a query row too high": ({"q_rows": GOOD["q_rows"] + 1}, "q_rows has numbers from 0 to 3; wanted -1 to 2"),
    "a key row too high": ({"table": GOOD["table"] + 1}, "table has numbers from 0 to 5; wanted -1 to 4"),
    "a value row too low": ({"value_table": GOOD["value_table"] - 1}, "value_table has numbers from -2 to 2"),
    "more keys than there are": ({"lengths": GOOD["lengths"] + 1}, "lengths has numbers from 2 to 38; wanted 0"),
    "lengths of other rows": ({"lengths": GOOD["lengths"][:4]}, r"lengths is torch.int64 \(4,\)"),
    "weights of another shape": ({"weights": torch.ones(3)}, r"weights is .*; wanted a floating dtype, \[4, 3\]"),
    "masks of another size": ({"masks": torch.ones(3, 49)}, r"masks is torch.float32 \(3, 49\)"),
    "masks that are booleans": ({"masks": torch.ones(3, 50).bool()}, "masks is torch.bool"),
    "masks that learn": ({"masks": torch.ones(3, 50, requires_grad=True)}, "wanted masks.detach()"),
    "no frames": ({"q": GOOD["q"][:0]}, r"q of shape \(0, 2, 50, 40\)"),
    "a negative scale": ({"scale": -1.0}, "scale is -1.0; wanted a finite number above 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_what_was_wanted(name):
    given, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        attention_terms(**(GOOD | given))
