"""Prompt-to-prompt by Triton's interpreter, against torch in float64 on the same folded values."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import fold
from mezzotint_kernels.p2p_op import p2p_op, p2p_op_reference

Bound = Callable[[Tensor, Tensor, Tensor], None]
SOURCE = [0, 0, 2, 2]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(queries: int, tokens: int, size: int, dtype: torch.dtype, rows: int = 4) -> list[Tensor]:
    """q, k, w and u; q and k views of [B, N, 2, D] as a linear layer leaves it."""
    q, k, v = (
        random(rows, n, 2, size, seed=i).to(dtype).transpose(1, 2) for i, n in enumerate((queries, tokens, tokens))
    )
    alpha = random(rows, tokens, seed=5).sigmoid()
    return [q, k, *fold(v, random(tokens, tokens, seed=4).softmax(-1), alpha, 1 + 0.3 * random(tokens, seed=6))]


def agree(
    bound: Bound,
    tensors: list[Tensor],
    source: list[int] = SOURCE,
    key_bias: Tensor | None = None,
    words: tuple[Tensor | None, Tensor | None] = (None, None),
) -> tuple[Tensor, Tensor]:
    wide = [x.double() for x in tensors]
    wide_words = [None if x is None else x.double() for x in words]
    got = p2p_op(*tensors, source, key_bias, *words, 0.2)
    exact = p2p_op_reference(*wide, source, key_bias, *wide_words, 0.2)
    theirs = p2p_op_reference(*tensors, source, key_bias, *words, 0.2)
    for ours, reference, torchs in zip(got, exact, theirs, strict=True):
        bound(ours, reference, torchs)
    return got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_every_head_size_and_dtype(bound: Bound, size: int, dtype: torch.dtype) -> None:
    agree(bound, inputs(19, 77, size, dtype, rows=2), [0, 0])


@pytest.mark.parametrize(("queries", "tokens"), [(1, 1), (16, 16), (33, 17), (7, 48), (64, 80), (40, 50)])
def test_odd_sizes_fill_their_output_and_nothing_else(bound: Bound, queries: int, tokens: int) -> None:
    agree(bound, inputs(queries, tokens, 24, torch.float32))


@pytest.mark.parametrize("source", [[0, 1, 2, 3], [3, 3, 3, 3], [0, 3, 0, 3]])
def test_any_row_may_be_the_source_of_any(bound: Bound, source: list[int]) -> None:
    agree(bound, inputs(20, 11, 40, torch.float16), source)


@pytest.mark.parametrize("words", [1, 2, 3, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_maps_of_words_are_float32_columns(bound: Bound, words: int, dtype: torch.dtype) -> None:
    columns = random(4, words, 21, seed=7), random(4, words, 21, seed=8)
    _, maps = agree(bound, inputs(19, 21, 40, dtype), words=columns)
    assert maps.dtype == torch.float32 and maps.shape == (4, words, 2, 19)


def test_a_bias_takes_tokens_away_and_a_row_without_any_is_zero(bound: Bound) -> None:
    key_bias = random(4, 21, seed=9)
    key_bias[0, 5:] = key_bias[1, :18] = key_bias[2] = -math.inf
    columns = random(4, 1, 21, seed=7), random(4, 1, 21, seed=8)
    out, maps = agree(bound, inputs(19, 21, 40, torch.float32), key_bias=key_bias, words=columns)
    assert not out[2].any() and not maps[2].any() and bool(out[3].any())
    agree(bound, inputs(19, 21, 40, torch.float32), key_bias=key_bias[:1])


def test_any_layout_gives_the_same(bound: Bound) -> None:
    q, k, w, u = inputs(20, 11, 40, torch.float16)
    heads_outside = [x.contiguous() for x in (q, k)]
    wide = torch.cat((q, k[:, :, :1].expand_as(q)), -1)
    agree(bound, [*heads_outside, w, u])
    agree(bound, [wide[..., :40], k, w.transpose(1, 2).contiguous().transpose(1, 2), u])
    agree(bound, [wide[..., 3:43], k, w, u])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_large_logits_stay_finite(bound: Bound, dtype: torch.dtype) -> None:
    q, k, w, u = inputs(20, 11, 40, dtype)
    agree(bound, [30 * q, 30 * k, w, u])


def test_more_tokens_than_the_block_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"p2p_attention cannot run.*more than 80 tokens"):
        p2p_op(*inputs(4, 81, 16, torch.float32), SOURCE, None, None, None, 0.2)
