"""Attention over a table of rows by Triton's interpreter, against torch in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import attention_indexed, deduplicate, indexed
from mezzotint_kernels.indexed import attention_indexed_reference

Bound = Callable[[Tensor, Tensor, Tensor], None]
INF = math.inf


def inputs(
    queries: int, keys: int, size: int, dtype: torch.dtype = torch.float32, heads: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """q [2, heads, queries, size], k and v [3, heads, keys, size], views of [B, N, H, D]."""
    generator = torch.Generator().manual_seed(queries + 1000 * keys + size)
    shapes = ((2, queries), (3, keys), (3, keys))
    q, k, v = (torch.randn(*s, heads, size, generator=generator).to(dtype).transpose(1, 2) for s in shapes)
    return q, k, v


def agree(bound: Bound, q: Tensor, k: Tensor, v: Tensor, table: list[list[int]], **options: Any) -> Tensor:
    rows = torch.tensor(table)
    got = attention_indexed(q, k, v, rows, **options)
    exact = attention_indexed_reference(q.double(), k.double(), v.double(), rows, **options)
    bound(got, exact, attention_indexed_reference(q, k, v, rows, **options))
    return got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_every_head_size_and_dtype(bound: Bound, size: int, dtype: torch.dtype) -> None:
    agree(bound, *inputs(20, 37, size, dtype), [[0, 2], [1, -1]])


@pytest.mark.parametrize("size", [8, 24, 32])
def test_the_small_models_head_sizes(bound: Bound, size: int) -> None:
    agree(bound, *inputs(17, 20, size), [[0, 2], [1, -1]])


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (33, 1), (1, 65), (16, 16), (64, 32), (63, 31)])
def test_odd_and_even_sizes_fill_their_output_and_nothing_else(bound: Bound, queries: int, keys: int) -> None:
    agree(bound, *inputs(queries, keys, 40, heads=2), [[2, 1], [0, 0]])


def test_weights_missing_slots_and_samples_without_any(bound: Bound) -> None:
    weights = torch.tensor([[0.5, -1.0, -INF, 2.0], [0.0, 0.0, -INF, 0.0]])
    got = agree(bound, *inputs(20, 37, 40), [[0, 1, 2, -1], [-1, -1, 0, -1]], log_weight=weights)
    assert torch.equal(got[1], torch.zeros_like(got[1]))


def test_rows_without_a_weight_are_not_looked_at() -> None:
    q, k, v = inputs(20, 20, 40)
    k[1:], v[1:] = math.nan, math.nan
    weights = torch.tensor([[-INF, 0.0, 0.0], [0.0, -INF, 0.0]])
    got = attention_indexed(q, k, v, torch.tensor([[1, 0, -1], [0, 2, -1]]), log_weight=weights)
    assert bool(got.isfinite().all())


def test_repeated_rows_folded_into_weights_give_the_same(bound: Bound) -> None:
    q, k, v = inputs(20, 37, 40)
    table = torch.tensor([[0, 0, 2], [1, 1, 1]])
    folded, weights = deduplicate(table)
    exact = attention_indexed_reference(q.double(), k.double(), v.double(), table)
    bound(
        attention_indexed(q, k, v, folded, log_weight=weights), exact, attention_indexed_reference(q, k, v, table)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_of_hundreds(bound: Bound, dtype: torch.dtype) -> None:
    q, k, v = inputs(20, 37, 40, dtype)
    weights = torch.tensor([[30.0, 0.0], [0.0, -30.0]])
    agree(bound, q * 12, k * 12, v, [[0, 2], [2, 1]], log_weight=weights)


def test_any_strides_with_a_last_one_of_one(bound: Bound) -> None:
    q, k, v = inputs(20, 37, 40, heads=2)
    wide = torch.zeros(3, 2, 37, 47)
    wide[..., 3:43] = k
    for keys in (k, k.contiguous(), wide[..., 3:43], k[:1].expand(3, -1, -1, -1)):
        got = agree(bound, q, keys, v, [[2, 1], [0, 0]])
        assert got.stride() == q.stride()
    assert agree(bound, q.contiguous(), k, v, [[2, 1], [0, 0]]).is_contiguous()


@pytest.mark.parametrize("wrong", [3, -2, 1 << 30])
def test_where_the_table_is_not_checked_a_row_that_is_not_there_makes_its_sample_nan(monkeypatch, wrong) -> None:
    monkeypatch.setattr(indexed, "check_range", lambda *_: None)  # as for a table on a GPU
    got = attention_indexed(*inputs(20, 37, 40), torch.tensor([[0, wrong], [0, 1]]))
    assert bool(got[0].isnan().all() and got[1].isfinite().all())


def test_a_row_that_is_not_there_is_refused_before_the_launch(monkeypatch) -> None:
    monkeypatch.setattr(indexed, "launch", lambda *_: pytest.fail("launched"))
    with pytest.raises(ValueError, match="table has numbers from 0 to 3; wanted -1 to 2"):
        attention_indexed(*inputs(20, 37, 40), torch.tensor([[0, 3], [0, 1]]))


def test_gradients_pass_through_a_launch() -> None:
    q, k, v = (x.requires_grad_() for x in inputs(5, 7, 40))
    table = torch.tensor([[0, 2], [1, -1]])
    got = torch.autograd.grad(attention_indexed(q, k, v, table).square().sum(), (q, k, v))
    wanted = torch.autograd.grad(attention_indexed_reference(q, k, v, table).square().sum(), (q, k, v))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
