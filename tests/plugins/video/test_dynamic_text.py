"""Words that change from frame to frame."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, UserError
from mezzotint_video.dynamic_text import words_over_time
from mezzotint_video.temporal_layers import Clip, TemporalLayers

FIRST, SECOND = (Conditioning(context=torch.full((2, 5, 12), value)) for value in (1.0, 3.0))


def values(told: Conditioning) -> list[float]:
    return [round(value, 4) for value in told.context[0, :, 0, 0].tolist()]


def test_words_are_mixed_evenly_between_their_places_and_stay_beyond_them() -> None:
    told = words_over_time([FIRST, SECOND], frames=7, places=[1, 5])
    assert told.context.shape == (2, 7, 5, 12)
    assert values(told) == [1, 1, 1.5, 2, 2.5, 3, 3]


def test_a_step_changes_at_once_half_way() -> None:
    assert values(words_over_time([FIRST, SECOND], frames=5, between="step")) == [1, 1, 1, 3, 3]


def test_three_texts_are_spread_over_the_clip() -> None:
    third = Conditioning(context=torch.full((2, 5, 12), 7.0))
    assert values(words_over_time([FIRST, SECOND, third], frames=5)) == [1, 2, 3, 5, 7]


def test_one_text_for_all_frames_is_what_the_clip_is_told_without_a_schedule() -> None:
    torch.manual_seed(0)
    layers = TemporalLayers(convolutions=[["a", 8]], context=12)
    for parameter in layers.parameters():
        torch.nn.init.normal_(parameter)
    words = Conditioning(context=torch.randn(2, 5, 12))
    told = words_over_time([words], frames=4).context
    assert torch.equal(told, words.context[:, None].expand(-1, 4, -1, -1))
    static = layers.modulation(Clip(2, 4, context=words.context))
    assert torch.allclose(layers.modulation(Clip(2, 4, context=told)), static, atol=1e-6)


def test_a_frames_words_tell_that_frame_alone() -> None:
    torch.manual_seed(0)
    layers = TemporalLayers(convolutions=[["a", 8]], context=12)
    context = torch.randn(2, 4, 5, 12)
    changed = context.clone()
    changed[0, 2] = torch.randn(5, 12)
    moved = layers.modulation(Clip(2, 4, context=changed)) - layers.modulation(Clip(2, 4, context=context))
    assert (moved.abs().amax(2) > 0).nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize("places", [[0], [3, 1], [0, 8], [2, 2]])
def test_places_that_do_not_fit_are_refused(places: list[int]) -> None:
    with pytest.raises(UserError, match=r"2 texts at the frames .* of 8; wanted as many rising numbers below 8"):
        words_over_time([FIRST, SECOND], frames=8, places=places)


def test_texts_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UserError, match=r"text 1 has tokens \[2, 6, 12\], the first one \[2, 5, 12\]"):
        words_over_time([FIRST, Conditioning(context=torch.zeros(2, 6, 12))])
    with pytest.raises(UserError, match="text 0 has tokens none"):
        words_over_time([Conditioning()])
