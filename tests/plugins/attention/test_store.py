"""The attention store and the heat maps: the mass of a word is the sum of its columns of the map."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mezzotint import AttentionCall, AttentionSite, Conditioning, NoiseLevel, Rows, UserError
from mezzotint_attention.injection import Evaluation
from mezzotint_attention.maps import overlaid
from mezzotint_attention.store import AttentionStore, word_mass
from mezzotint_kernels import attention, normals

SITE = AttentionSite("up.attn2", "cross", "up", 0, 2, 4)
LEVEL = NoiseLevel(0.6, 0.8, 500.0)
WORDS = ((1,), (2, 4), (3,), (5,), (0,), (6,))


def call(batch: int = 2, size: tuple[int, int] = (2, 3), **changes: Any) -> AttentionCall:
    query = normals(1, (batch, 2, size[0] * size[1], 4), stream="q").double()
    key, value = (normals(seed, (batch, 2, 7, 4), stream="kv").double() for seed in (2, 3))
    return AttentionCall(SITE, query, key, value, LEVEL, size=size, **changes)


def plain(one: AttentionCall) -> torch.Tensor:
    return attention(one.query, one.key, one.value, bias=one.bias, key_bias=one.key_bias, scale=one.scale)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_the_mass_of_a_word_is_the_sum_of_its_columns_of_the_map_in_float64(scale: float | None) -> None:
    bias = torch.zeros(2, 7).double()
    bias[:, 6] = -math.inf
    one = call(scale=scale, key_bias=bias)
    logits = one.query @ one.key.transpose(-1, -2) * (0.5 if scale is None else scale) + bias[:, None, None]
    maps = logits.softmax(-1).mean(1)  # [B, N, M]
    wanted = torch.stack([maps[..., list(word)].sum(-1) for word in WORDS], dim=1)
    # Six words and heads of four numbers: more words than fit into one call.
    assert torch.allclose(word_mass(one, plain, WORDS), wanted, atol=1e-12)


def test_the_store_keeps_the_means_over_layers_and_evaluations_of_the_rows_of_the_samples_alone() -> None:
    opened = AttentionStore(words=WORDS).open(None, None)  # type: ignore[arg-type]
    x = torch.zeros(2, 4, 2, 3)
    assert opened.begin(Evaluation(x, LEVEL, Rows((0, 0), (True, False)), Conditioning()))
    one, other = call(), replace(call(), query=call().query * 2)
    assert torch.equal(opened.attend(one, plain), plain(one))
    opened.attend(other, plain)
    wanted = (word_mass(one, plain, WORDS) + word_mass(other, plain, WORDS))[:1] / 2
    assert torch.allclose(opened.maps((2, 3)), wanted.unflatten(-1, (2, 3)), atol=1e-12)


def test_maps_of_several_sizes_are_brought_to_one() -> None:
    opened = AttentionStore(words=((1,),)).open(None, None)  # type: ignore[arg-type]
    opened.begin(Evaluation(torch.zeros(1, 4, 4, 4), LEVEL, Rows((0,), (True,)), None))
    opened.attend(call(1, (2, 2)), plain)
    opened.attend(call(1, (4, 4)), plain)
    assert opened.maps((4, 4)).shape == (1, 1, 4, 4)


def test_a_store_that_saw_nothing_says_so() -> None:
    with pytest.raises(UserError, match="has seen no layer"):
        AttentionStore(words=((1,),)).open(None, None).maps((2, 2))  # type: ignore[arg-type]


def test_what_is_not_a_picture_is_refused() -> None:
    opened = AttentionStore(words=((1,),)).open(None, None)  # type: ignore[arg-type]
    opened.begin(Evaluation(torch.zeros(2, 4, 2, 3), LEVEL, Rows((0, 1), (True, True)), None))
    with pytest.raises(UserError, match="are no picture"):
        opened.attend(replace(call(), size=None), plain)


def test_heat_is_drawn_over_the_grey_picture_from_dark_to_pale() -> None:
    picture = torch.tensor([1.0, 0.0, 0.5]).expand(1, 2, 2, 3)
    drawn = overlaid(picture, torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
    assert drawn.shape == (1, 1, 2, 2, 3)
    assert drawn.min() >= 0 and drawn.max() <= 1
    cold, hot = drawn[0, 0, 0, 0], drawn[0, 0, 0, 1]
    assert torch.allclose(cold, 0.4 * torch.tensor([0.5] * 3) + 0.6 * torch.tensor([0.0, 0.0, 0.05]))
    assert hot.sum() > cold.sum() + 1
