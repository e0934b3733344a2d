"""Prompt-to-prompt: against written-out maps in float64, no trace where nothing is edited, blended exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mezzotint import AttentionCall, AttentionSite, Conditioning, NoiseLevel, Rows, UserError
from mezzotint_attention.injection import Evaluation
from mezzotint_attention.local_blend import LocalBlend, blended, word_maps
from mezzotint_attention.prompt_to_prompt import CrossEdit, SelfEdit, source_rows
from mezzotint_kernels import attention

ROWS = Rows((0, 1, 2, 3, 0, 1, 2, 3), (True,) * 4 + (False,) * 4)
"""Two seeds of a source and one edit, and what guidance compares them with."""
PROMPTS, TOKENS = 2, 5
LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=4, steps=11)  # progress 0.4


def call(places: int = 9, tokens: int = TOKENS, kind: Any = "cross", rows: int = 8) -> AttentionCall:
    torch.manual_seed(1)
    q, k, v = (torch.randn(rows, 2, n, 4, dtype=torch.float64) for n in (places, tokens, tokens))
    return AttentionCall(AttentionSite("layer", kind, "up", 0, 2, 4), q, k, v, LEVEL, size=(3, 3))


def plain(asked: AttentionCall) -> torch.Tensor:
    return attention(asked.query, asked.key, asked.value, scale=asked.scale, key_bias=asked.key_bias)


def maps_of(asked: AttentionCall) -> torch.Tensor:
    return (asked.query @ asked.key.mT * asked.query.shape[-1] ** -0.5).softmax(-1)


def edit(**changes: Any) -> CrossEdit:
    torch.manual_seed(2)
    mapping = torch.stack([torch.eye(TOKENS), torch.rand(TOKENS, TOKENS).softmax(1)])
    made = CrossEdit(
        mapping=mapping,
        share=torch.tensor([[1.0] * TOKENS, [1, 1, 0, 1, 1]]),
        weight=torch.tensor([[1.0] * TOKENS, [1, 1, 3, 0.5, 1]]),
        until=torch.tensor([[0.8] * TOKENS, [0.8, 0.8, 0.8, 0.8, 0.3]]),
        edited=(False, True),
    )
    return replace(made, **changes)


def opened(injection: Any, rows: Rows = ROWS, level: NoiseLevel = LEVEL, model: Any = None) -> Any:
    found = injection.open(model, None)
    found.works = found.begin(Evaluation(torch.zeros(8, 4, 3, 3), level, rows, Conditioning()))
    return found


def test_an_edits_maps_are_the_papers_and_all_other_rows_stay() -> None:
    asked = call()
    out = opened(edit()).attend(asked, plain)
    own, table = maps_of(asked), edit()
    # The last token's part of the run is over.
    share = (table.share[1] * torch.tensor([1, 1, 1, 1, 0])).double()
    weight = torch.tensor([1, 1, 3, 0.5, 1], dtype=torch.float64)
    wanted = own @ asked.value
    for row in (1, 3):
        mixed = share * (own[row - 1] @ table.mapping[1].double()) + (1 - share) * own[row]
        wanted[row] = (mixed * weight) @ asked.value[row]
    torch.testing.assert_close(out, wanted)
    assert torch.equal(out[[0, 2, 4, 5, 6, 7]], plain(asked)[[0, 2, 4, 5, 6, 7]])


def test_a_token_outside_of_its_part_of_the_run_has_no_weight_either() -> None:
    late = edit(until=torch.tensor([[0.8] * 5, [0.8, 0.8, 0.3, 0.3, 0.3]]), share=torch.zeros(2, 5))
    asked = call()
    torch.testing.assert_close(opened(late).attend(asked, plain), plain(asked))


def test_an_edit_of_self_attention_is_the_sources_map_on_its_own_values() -> None:
    asked = call(tokens=9, kind="self")
    out = opened(SelfEdit(edited=(False, True))).attend(asked, plain)
    wanted = maps_of(asked) @ asked.value
    for row in (1, 3):
        wanted[row] = maps_of(asked)[row - 1] @ asked.value[row]
    torch.testing.assert_close(out, wanted)


@pytest.mark.parametrize("kind", [CrossEdit, SelfEdit])
def test_a_batch_without_edits_takes_the_plain_path(kind: Any) -> None:
    nothing = edit(edited=(False, False)) if kind is CrossEdit else SelfEdit(edited=(False, False))
    assert opened(nothing).works is False
    compared = Rows(ROWS.samples, (False,) * 8)
    assert opened(replace(nothing, edited=(False, True)), rows=compared).works is False


def test_each_edit_finds_its_source_in_its_own_part_of_the_batch() -> None:
    assert source_rows(ROWS, (False, True)) == [0, 0, 2, 2, 4, 5, 6, 7]
    parts = Rows((0, 1, 2) * 2, (True,) * 6)
    assert source_rows(parts, (False, True, True)) == [0, 0, 0, 3, 3, 3]
    assert source_rows(parts, (False, False, True)) == [0, 1, 0, 3, 4, 3]
    clip = Rows((0, 1), (True, True), frames=3)
    assert source_rows(clip, (False, True)) == [0, 1, 2, 0, 1, 2]


def test_a_batch_that_is_no_multiple_of_the_prompts_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"2 prompts, a source and its edits, and the run 3 samples; wanted a mult"
    ):
        source_rows(Rows((0, 1, 2), (True,) * 3), (False, True))
    with pytest.raises(UserError, match="without its source"):
        source_rows(Rows((1, 3), (True,) * 2), (False, True))


def test_prompts_of_another_encoder_are_refused() -> None:
    with pytest.raises(UserError, match="prompts of 5 tokens; the conditioning has 7"):
        opened(edit()).attend(call(tokens=7), plain)


def test_word_maps_are_those_that_the_edit_uses() -> None:
    asked, crossing = call(), opened(edit())
    words = torch.zeros(8, TOKENS)
    words[:, 2], words[1, 3] = 1, 1
    seen = word_maps(asked, lambda inner: crossing.attend(inner, plain), words)
    # What comes out for values that name their token is the map itself.
    named = torch.eye(TOKENS, 4, dtype=torch.float64).expand(8, 2, TOKENS, 4)
    rest = crossing.attend(replace(asked, value=named), plain)
    torch.testing.assert_close(seen[0], rest[0, :, :, 2].mean(0).float())
    torch.testing.assert_close(seen[1], (rest[1, :, :, 2] + rest[1, :, :, 3]).mean(0).float())


def test_where_no_word_looks_an_edit_is_its_source_and_elsewhere_its_own() -> None:
    x = torch.randn(4, 3, 8, 8)
    maps = torch.zeros(4, 8, 8)
    maps[0, 1, 1], maps[1, 6, 6] = 2.0, 5.0  # of the source, and of its edit; the other pair has none
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[0:3, 0:3] = inside[5:8, 5:8] = True
    out = blended(x, maps, 2, 0.3)
    assert torch.equal(out[0], x[0]) and torch.equal(out[2], x[2])
    assert torch.equal(out[1], torch.where(inside, x[1], x[0]))
    assert torch.equal(out[3], x[2])


def test_the_threshold_is_of_each_maps_maximum() -> None:
    x, maps = torch.randn(2, 1, 1, 8), torch.zeros(2, 1, 8)
    maps[1, 0] = torch.tensor([0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 1.0])
    for threshold, width in ((0.1, 8), (0.3, 2), (0.99, 2)):
        out = blended(x, maps, 2, threshold)
        assert torch.equal(out[1, 0, 0], torch.cat([x[0, 0, 0, : 8 - width], x[1, 0, 0, 8 - width :]]))


def test_clips_are_blended_frame_by_frame() -> None:
    x, maps = torch.randn(2, 3, 2, 4, 4), torch.zeros(4, 4, 4)
    maps[3, 0, 0] = 1.0  # frame 1 of the edit
    out = blended(x, maps, 2, 0.3)
    assert torch.equal(out[1, :, 0], x[0, :, 0])
    assert torch.equal(out[1, :, 1, :2, :2], x[1, :, 1, :2, :2]) and torch.equal(out[1, :, 1, 2:], x[0, :, 1, 2:])


class Layers:
    attention_sites = (AttentionSite("layer", "cross", "up", 0, 2, 4),)


def test_a_blend_gathers_the_rows_of_samples_and_gives_back_what_it_gathered() -> None:
    words = torch.zeros(2, TOKENS)
    words[:, 1] = 1
    blending = opened(LocalBlend(words=words, threshold=0.5), model=Layers())
    asked = call()
    assert torch.equal(blending.attend(asked, plain), plain(asked))
    wanted = maps_of(asked)[:4, :, :, 1].mean(1).view(4, 3, 3).float()
    torch.testing.assert_close(blending.remembered()["total"], wanted)
    again = opened(LocalBlend(words=words, threshold=0.5), model=Layers())
    again.remember(blending.remembered())
    x = torch.randn(4, 4, 3, 3)
    assert torch.equal(again.after_step(x, LEVEL), blending.after_step(x, LEVEL))
    assert torch.equal(blending.after_step(x, replace(LEVEL, step=2)), x)  # before its part of the run


class Shapes(TorchDispatchMode):
    """The shapes of all that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, torch.Tensor):
                self.seen.add(tuple(one.shape))
        return found


def test_no_map_reaches_memory() -> None:
    words = torch.ones(2, TOKENS)
    crossing, blending = opened(edit()), opened(LocalBlend(words=words), model=Layers())
    asked = call()
    asked = replace(
        asked, query=asked.query.float(), key=asked.key.float(), value=asked.value.float(), size=(3, 3)
    )
    with Shapes() as shapes:
        blending.attend(asked, lambda inner: crossing.attend(inner, plain))
    assert shapes.seen and not [shape for shape in shapes.seen if shape[-2:] == (9, TOKENS)]
