"""Clips of several runs as one batch."""

from __future__ import annotations

import pytest
import torch

from mezzotint import UserError, Video
from mezzotint.testing import check_node
from mezzotint_metrics.gathering import gather_clips


def test_clips_come_in_their_order_at_their_rate():
    videos = [Video(torch.full((count, 2, 4, 4, 3), count / 4), 16.0) for count in (1, 2)]
    (got,) = check_node(gather_clips, videos=videos).values()
    assert got.fps == 16 and got.data[:, 0, 0, 0, 0].tolist() == [0.25, 0.5, 0.5]


@pytest.mark.parametrize(
    "other", [Video(torch.zeros(1, 3, 4, 4, 3), 8.0), Video(torch.zeros(1, 2, 4, 4, 3), 16.0)]
)
def test_clips_of_another_length_or_rate_and_none_at_all_are_refused(other):
    with pytest.raises(UserError, match="of one size, length and rate; number 1 has"):
        gather_clips([Video(torch.zeros(1, 2, 4, 4, 3), 8.0), other])
    with pytest.raises(UserError, match="at least one clip"):
        gather_clips([])
