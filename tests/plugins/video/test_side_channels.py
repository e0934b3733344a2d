"""Side channels: training draws what the nodes make."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, Latents, UserError
from mezzotint.testing import fake_context
from mezzotint_video.side_channels import SIDES, condition_on_frames, condition_on_slow_clip

CLIPS = torch.randn(64, 8, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def drawn(kind: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    return SIDES[kind].draw({"latents": CLIPS}, torch.Generator().manual_seed(1))


def test_known_frames_are_the_clips_own_and_the_others_are_empty() -> None:
    side, level = drawn("frames")
    assert level is None and side.shape == (64, 8, SIDES["frames"].channels(3), 4, 4)
    known = side[:, :, 3, 0, 0] > 0
    assert torch.equal(side[known][:, :3], CLIPS[known]) and not side[~known].any()
    counts = known.sum(1)
    assert (counts == 0).any() and (counts == 1).any() and (counts >= 2).any() and not (counts == 8).any()
    assert known[counts > 0, 0].all()


def test_a_slow_clip_is_every_other_frame_twice_and_its_noise_is_as_told() -> None:
    side, level = drawn("slow")
    assert side.shape == CLIPS.shape and level.min() >= 0 and level.max() <= 0.5
    slow = CLIPS[:, ::2].repeat_interleave(2, dim=1)
    angle = (level * torch.pi / 2).view(-1, 1, 1, 1, 1)
    noise = (side - angle.cos() * slow) / angle.sin()
    assert noise.std() == pytest.approx(1, abs=0.02)


def test_frames_are_shown_where_they_were_placed() -> None:
    known = Latents(CLIPS[:2, :2].transpose(1, 2))
    told = condition_on_frames(Conditioning(), known, places=[0, 7], frames=8)
    assert told.concat.shape == (2, 4, 8, 4, 4)
    assert torch.equal(told.concat[:, :3, 7], CLIPS[:2, 1])
    assert told.concat[0, 3, :, 0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 1]


def test_no_known_frame_is_all_zeros_as_training_has_it() -> None:
    told = condition_on_frames(Conditioning(), like=Latents(torch.zeros(2, 3, 8, 4, 4)), frames=8)
    assert told.concat.shape == (2, 4, 8, 4, 4) and not told.concat.any()


def test_a_slow_clip_without_noise_is_each_frame_twice() -> None:
    clip = Latents(CLIPS[:2, :4].transpose(1, 2))
    told = condition_on_slow_clip(fake_context(), Conditioning(), clip, level=0.0)
    assert torch.equal(told.concat[:, :, 5], clip.data[:, :, 2]) and told.concat.shape[2] == 8
    assert told.low_res_level.tolist() == [0, 0]
    noisy = condition_on_slow_clip(fake_context(), Conditioning(), clip, level=1.0).concat
    assert abs(torch.corrcoef(torch.stack([noisy.flatten(), told.concat.flatten()]))[0, 1]) < 0.1


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(UserError, match="give known frames, or latents"):
        condition_on_frames(Conditioning())
    with pytest.raises(UserError, match=r"places are \[0, 8\]; wanted as many places below 8"):
        condition_on_frames(Conditioning(), Latents(torch.zeros(1, 3, 2, 4, 4)), places=[0, 8], frames=8)
    with pytest.raises(UserError, match="wanted clips"):
        condition_on_slow_clip(fake_context(), Conditioning(), Latents(torch.zeros(1, 3, 4, 4)))
