"""Cutting clips and putting them together."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Latents, UserError
from mezzotint_video.frames import join_frames, take_frames

CLIP = Latents(torch.arange(2 * 3 * 5.0).view(2, 3, 5, 1, 1), space="a")


def test_what_is_taken_apart_with_an_overlap_joins_to_the_whole() -> None:
    first, second = take_frames(CLIP, count=3), take_frames(CLIP, count=3, last=True)
    assert torch.equal(join_frames([first, second], overlap=1).data, CLIP.data)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"start": 5}, "frames 5 to 4"),
        ({"start": 3, "count": 3}, "3 to 5"),
        ({"count": 6, "last": True}, "-1 to 4"),
    ],
)
def test_frames_that_are_not_there_are_refused(settings: dict[str, int], told: str) -> None:
    with pytest.raises(UserError, match=f"{told}.*there are 0 to 4"):
        take_frames(CLIP, **settings)


def test_clips_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="wanted clips"):
        take_frames(Latents(torch.zeros(1, 3, 4, 4)))
    with pytest.raises(UserError, match=r"clip 1 is .* in 'b'"):
        join_frames([CLIP, CLIP.replace(space="b")])
    with pytest.raises(UserError, match="has 5 frames, and 5 of them overlap"):
        join_frames([CLIP, CLIP], overlap=5)
