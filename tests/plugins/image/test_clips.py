"""Between clips and pictures: which frames, in which order, at which time."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Image, UserError, Video
from mezzotint.testing import fake_video
from mezzotint_image.clips import contact_strip, frames, resample_video, to_video


def _numbered(count: int, batch: int = 1, fps: float = 8.0) -> Video:
    """Frame f of clip b is b * 100 + f throughout (in 1/1000)."""
    values = torch.arange(count) + 100 * torch.arange(batch).unsqueeze(1)
    return Video((values / 1000).reshape(batch, count, 1, 1, 1).expand(-1, -1, 4, 6, 3).contiguous(), fps)


def _numbers(data: torch.Tensor) -> list[int]:
    return (data[..., 0, 0, 0] * 1000).round().long().flatten().tolist()


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, [0, 100]),
        ({"index": -1}, [4, 104]),
        ({"index": 1, "count": 2}, [1, 2, 101, 102]),
        ({"count": None, "every": 2}, [0, 2, 4, 100, 102, 104]),
        ({"index": -3, "count": None}, [2, 3, 4, 102, 103, 104]),
        ({"index": 1, "count": 2, "every": 3}, [1, 4, 101, 104]),
    ],
)
def test_frames_are_counted_from_either_end_clip_after_clip(asked, wanted):
    assert _numbers(frames(_numbered(5, batch=2), **asked).data) == wanted


@pytest.mark.parametrize(
    "asked", [{"index": 5}, {"index": -6}, {"count": 6}, {"index": 3, "count": 2, "every": 2}]
)
def test_frames_that_are_not_there_are_an_error(asked):
    with pytest.raises(UserError, match="the clip has 5"):
        frames(_numbered(5), **asked)


def test_pictures_become_clips_and_frames_again():
    clip = fake_video(batch=2, frames=3)
    pictures = frames(clip, count=None)
    again = to_video(pictures, fps=8.0, clips=2)
    assert torch.equal(again.data, clip.data) and again.fps == 8.0
    assert list(to_video(Image(clip.data[0, :1])).data.shape) == [1, 1, 16, 16, 3]
    with pytest.raises(UserError, match="6 pictures are not 4 clips"):
        to_video(pictures, clips=4)
    with pytest.raises(UserError, match="at least one picture"):
        to_video(Image(torch.zeros(0, 4, 4, 3)))


@pytest.mark.parametrize(
    ("asked", "wanted", "fps"),
    [
        ({"fps": 4.0}, [0, 2, 4, 6], 4.0),
        ({"fps": 16.0}, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7], 16.0),
        ({"frames": 2}, [0, 4], 2.0),
        ({"frames": 3}, [0, 2, 5], 3.0),
        ({"frames": 4, "fps": 8.0}, [0, 2, 4, 6], 8.0),
        ({}, [0, 1, 2, 3, 4, 5, 6, 7], 8.0),
    ],
)
def test_another_rate_shows_what_was_shown_at_that_time(asked, wanted, fps):
    found = resample_video(_numbered(8), **asked)
    assert _numbers(found.data) == wanted and found.fps == fps


def test_linear_resampling_keeps_a_motion_of_constant_speed():
    """A ramp over time, at the middles of the new frames; beyond the first and last middle it stays."""
    found = resample_video(_numbered(8), frames=16, method="linear").data[0, :, 0, 0, 0] * 1000
    middles = ((torch.arange(16) + 0.5) / 2 - 0.5).clamp(0, 7)
    assert torch.allclose(found, middles, atol=1e-4)


def test_a_rate_that_is_none_or_gives_too_many_frames_is_refused():
    for fps in (0.0, -1.0, float("nan"), float("inf"), 1e6):
        with pytest.raises(UserError, match="frame rate is"):
            resample_video(_numbered(2, fps=fps), frames=2)
    with pytest.raises(UserError, match="80000 frames"):
        resample_video(_numbered(8, fps=0.1), fps=1000.0)
    with pytest.raises(UserError, match="over 1000"):
        resample_video(_numbered(8), frames=1001)
    with pytest.raises(UserError, match="with frames"):
        resample_video(Video(torch.zeros(1, 0, 4, 4, 3), 8.0), fps=4.0)


def test_a_strip_shows_each_clip_on_a_row_of_its_own():
    clip = Video(torch.rand(2, 5, 8, 10, 3), 5.0)
    strip = contact_strip(clip, every=2, margin=1).data[0]
    assert list(strip.shape) == [2 * 9 + 1, 3 * 11 + 1, 3]
    found = strip[10:18, 12:22]
    assert torch.allclose(found, clip.data[1, 2], atol=0.5 / 255 + 1e-6)
    labelled = contact_strip(clip, labels="seconds", columns=2)
    assert labelled.data.shape[1] > strip.shape[0]
