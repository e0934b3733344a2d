"""Attention over frames by Triton's interpreter, against torch in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint_kernels import temporal_attention
from mezzotint_kernels.temporal import temporal_attention_reference

Bound = Callable[[Tensor, Tensor, Tensor], None]


def clip(*shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]


def agree(bound: Bound, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    got = temporal_attention(q, k, v, **options)
    exact = temporal_attention_reference(q.double(), k.double(), v.double(), **options)
    bound(got, exact, temporal_attention_reference(q, k, v, **options))
    return got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [40, 64, 80, 128, 160])
def test_every_head_size_and_dtype(bound: Bound, size: int, dtype: torch.dtype) -> None:
    agree(bound, *clip(1, 5, 3, 2, size, dtype=dtype))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 40), (2, 16, 2, 1, 16), (1, 17, 3, 1, 40), (1, 32, 1, 2, 8), (3, 3, 5, 3, 24)]
)
@pytest.mark.parametrize("causal", [False, True])
def test_odd_sizes_fill_their_output_and_nothing_else(bound: Bound, shape: tuple[int, ...], causal: bool) -> None:
    agree(bound, *clip(*shape), causal=causal)


@pytest.mark.parametrize("leading", [(), (2,), (2, 2), (2, 1)])
def test_a_bias_of_samples_and_heads(bound: Bound, leading: tuple[int, ...]) -> None:
    bias = torch.randn(*leading, 6, 6, generator=torch.Generator().manual_seed(1))
    agree(bound, *clip(2, 6, 3, 2, 40), bias=bias)
    agree(bound, *clip(2, 6, 3, 2, 40, dtype=torch.float16), bias=bias, causal=True, scale=0.4)


def test_a_frame_that_may_see_none_gets_zeros(bound: Bound) -> None:
    bias = torch.zeros(2, 6, 6)
    bias[0, 2] = bias[1, :, :3] = -math.inf
    got = agree(bound, *clip(1, 6, 3, 2, 40), bias=bias, causal=True)
    assert not got[:, 2, :, 0].any() and not got[:, :3, :, 1].any()


@pytest.mark.parametrize("axes", [(0, 2, 1, 3, 4), (0, 3, 1, 2, 4), (3, 0, 2, 1, 4)])
def test_any_order_of_the_axes_in_memory(bound: Bound, axes: tuple[int, ...]) -> None:
    back = tuple(axes.index(i) for i in range(5))
    q, k, v = clip(2, 5, 3, 2, 40, dtype=torch.float16)
    agree(bound, q.permute(axes).contiguous().permute(back), k, v.permute(axes).contiguous().permute(back))


def test_parts_of_a_projection_and_rows_that_start_nowhere_special(bound: Bound) -> None:
    (whole, *_) = clip(1, 5, 3, 2, 123, dtype=torch.float16)
    agree(bound, *whole[..., :120].chunk(3, -1))
    agree(bound, whole[..., 1:41], whole[..., 40:80], whole[..., 83:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_large_logits_stay_finite(bound: Bound, dtype: torch.dtype) -> None:
    q, k, v = clip(1, 7, 2, 1, 40, dtype=dtype)
    agree(bound, 30 * q, 30 * k, v)


def test_a_clip_longer_than_the_block_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"temporal_attention cannot run.*more than 32 frames"):
        temporal_attention(*clip(1, 33, 1, 1, 16))
