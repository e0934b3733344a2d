"""Frame consistency: cosines, differences and decibels of neighbouring frames, where they are known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from mezzotint import ImageEncoder, Source, UserError, Video
from mezzotint.testing import check_node, fake_context
from mezzotint_metrics.consistency import frame_consistency


class Means:
    nbytes = 0

    @staticmethod
    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(1, 2))


ENCODER = ImageEncoder(Source("means", "", "0123456789abcdef"), "test.means")


def context():
    return fake_context(loaders={"test.means": lambda recipe, ctx: Means()})


def plain(*colours: tuple[float, float, float]) -> Video:
    """One clip, whose frames are of one colour each."""
    return Video(torch.tensor(colours, dtype=torch.float32).view(1, -1, 1, 1, 3).expand(-1, -1, 4, 4, -1), 8.0)


def test_a_still_picture_is_wholly_consistent_and_has_no_decibels():
    got = check_node(frame_consistency, ctx=context(), video=plain((1, 0, 0), (1, 0, 0)), encoder=ENCODER)
    data = got["report"].data
    assert data["consistency"] == pytest.approx(100) and data["difference"] == 0 and data["psnr"] is None
    json.dumps(dict(data), allow_nan=False)


def test_the_cosine_is_that_of_neighbours_only():
    # Red, then half way to green, then green: 45 degrees each, though the ends are at right angles.
    video = plain((1, 0, 0), (0.5, 0.5, 0), (0, 1, 0))
    got = frame_consistency(context(), video, ENCODER).data
    assert got["consistency"] == pytest.approx(100 * math.cos(math.pi / 4))


def test_differences_and_decibels_are_those_of_pixels():
    first, second = (torch.rand(1, 1, 6, 6, 3, generator=torch.Generator().manual_seed(i)) for i in range(2))
    got = frame_consistency(context(), Video(torch.cat((first, second), 1), 2.0)).data
    assert got["difference"] == pytest.approx((first - second).abs().mean().item(), rel=1e-6)
    wanted = peak_signal_noise_ratio(first, second, data_range=1.0).item()
    assert got["psnr"] == pytest.approx(wanted, rel=1e-5)
    assert got["consistency"] is None, "no encoder"


def test_each_clip_has_a_row_and_the_means_leave_out_what_does_not_change():
    one, other = plain((0, 0, 0), (0.1, 0.1, 0.1)), plain((1, 0, 0), (1, 0, 0))
    got = frame_consistency(context(), Video(torch.cat((one.data, other.data)), 2.0)).data
    assert [row["psnr"] for row in got["rows"]] == [pytest.approx(20, rel=1e-5), None]
    assert got["psnr"] == pytest.approx(20, rel=1e-5) and got["difference"] == pytest.approx(0.05)
    assert (got["clips"], got["frames"]) == (2, 2)


@pytest.mark.parametrize(
    "shape", [(1, 0, 4, 4, 3), (1, 1, 4, 4, 3), (0, 4, 4, 4, 3), (4, 4, 4, 3), (1, 4, 4, 4, 1)]
)
def test_a_single_frame_and_what_is_no_clip_are_refused(shape):
    with pytest.raises(UserError, match=r"metrics\.frame_consistency: (wanted clips|the clips are too short)"):
        frame_consistency(context(), Video(torch.zeros(shape), 8.0))
