"""Attention in terms by Triton's interpreter, against torch in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import attention_terms, terms
from mezzotint_kernels.terms import Tables, attention_terms_reference

Bound = Callable[[Tensor, Tensor, Tensor], None]
INF = math.inf
OPTIONS = ("value_table", "weights", "masks", "log_weight", "lengths")


def inputs(
    queries: int, keys: int, size: int, dtype: torch.dtype = torch.float32, heads: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """q [2, heads, queries, size], k and v [3, heads, keys, size], views of [B, N, H, D]."""
    generator = torch.Generator().manual_seed(queries + 1000 * keys + size)
    shapes = ((2, queries), (3, keys), (3, keys))
    q, k, v = (torch.randn(*s, heads, size, generator=generator).to(dtype).transpose(1, 2) for s in shapes)
    return q, k, v


def tables(queries: int, keys: int, *, per_sample: bool = False) -> dict[str, Tensor]:
    """Three samples of two terms of two slots, with every option, holes, and a sample that has nothing."""
    generator = torch.Generator().manual_seed(queries)
    return {
        "q_rows": torch.tensor([[1, 0], [-1, 1], [0, -1]]),
        "table": torch.tensor([[[0, 1], [2, -1]], [[0, 0], [2, 1]], [[-1, -1], [1, 1]]]),
        "value_table": torch.tensor([[[0, 0], [1, -1]], [[0, 0], [2, 1]], [[-1, 1], [1, 1]]]),
        "weights": torch.randn(3, 2, generator=generator),
        "masks": torch.rand(*((3,) if per_sample else ()), 2, queries, generator=generator),
        "log_weight": torch.randn(3, 2, 2, generator=generator),
        "lengths": torch.tensor([keys, max(1, keys - 20), keys // 2]),
    }


def agree(bound: Bound, q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
    got = attention_terms(q, k, v, **given)
    exact = attention_terms_reference(q.double(), k.double(), v.double(), **given)
    bound(got, exact, attention_terms_reference(q, k, v, **given))
    return got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_every_head_size_and_dtype(bound: Bound, size: int, dtype: torch.dtype) -> None:
    got = agree(bound, *inputs(20, 37, size, dtype), **tables(20, 37))
    assert torch.equal(got[2], torch.zeros_like(got[2]))


@pytest.mark.parametrize("option", [(), *((name,) for name in OPTIONS)])
def test_each_option_without_the_others(bound: Bound, option: tuple[str, ...]) -> None:
    agree(bound, *inputs(17, 37, 40), **{name: tables(17, 37)[name] for name in ("q_rows", "table", *option)})


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (33, 1), (1, 65), (16, 16), (64, 32)])
def test_odd_and_even_sizes_fill_their_output_and_nothing_else(bound: Bound, queries: int, keys: int) -> None:
    given = tables(queries, keys, per_sample=True)
    agree(bound, *inputs(queries, keys, 24, heads=2), **given)
    del given["lengths"]  # with them, even sizes are treated as odd ones
    agree(bound, *inputs(queries, keys, 24, heads=2), **given)


def test_keys_behind_a_rows_length_are_not_looked_at() -> None:
    q, k, v = inputs(17, 37, 40)
    k[0, :, 35:], v[0, :, 35:] = math.nan, math.nan
    k[1], v[1] = math.nan, math.nan
    found = attention_terms(
        q, k, v, torch.tensor([[0]]), torch.tensor([[[0, 1]]]), lengths=torch.tensor([35, 0, 37])
    )
    assert bool(found.isfinite().all())


def test_logits_of_hundreds(bound: Bound) -> None:
    q, k, v = inputs(17, 37, 40)
    agree(bound, q * 12, k * 12, v, **tables(17, 37))


def test_strides_are_those_of_the_queries(bound: Bound) -> None:
    q, k, v = inputs(17, 37, 40, heads=2)
    given = tables(17, 37)
    assert agree(bound, q, k.contiguous(), v, **given).stride()[1:] == q.stride()[1:]
    assert agree(bound, q.contiguous(), k, v[..., :1, :].expand_as(v), **given).is_contiguous()


@pytest.mark.parametrize(
    ("name", "wrong"), [("q_rows", 2), ("q_rows", -2), ("table", 3), ("value_table", 3), ("lengths", 38)]
)
def test_where_tables_are_not_checked_a_wrong_number_makes_its_sample_nan(monkeypatch, name, wrong) -> None:
    monkeypatch.setattr(Tables, "check_ranges", lambda *_: None)  # as for tables on a GPU
    given = tables(17, 37)
    given[name].view(-1)[0] = wrong
    given["masks"] += 0.5
    got = attention_terms(*inputs(17, 37, 40), **given)
    assert bool(got[0].isnan().all() and got[2].isfinite().all())


def test_a_wrong_number_is_refused_before_the_launch(monkeypatch) -> None:
    monkeypatch.setattr(terms, "launch", lambda *_: pytest.fail("launched"))
    given = tables(17, 37)
    for name in ("q_rows", "table", "value_table", "lengths"):
        with pytest.raises(ValueError, match=f"{name} has numbers from"):
            attention_terms(*inputs(17, 37, 40), **(given | {name: given[name] + 3}))
