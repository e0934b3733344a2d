"""Clips through an autoencoder: slices and tiles change nothing that they should not."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Autoencoder, Latents, Source, UserError, Video
from mezzotint.testing import fake_context, fake_video
from mezzotint_models.overlapping import blending_weights, even_starts
from mezzotint_models.video_latents import decode_video, encode_video, to_video, to_video_latents

RECIPE = Autoencoder(Source("testing:ae", "", "ae"), "testing.ae", channels=3, downscale=4, space="s")


class Local:
    """Encodes each 4x4 block to its mean, decodes by repeating: exact in any tile. Remembers its calls."""

    def __init__(self):
        self.calls = []

    def encode(self, pixels):
        self.calls.append(tuple(pixels.shape))
        return torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 4)

    def decode(self, latents):
        self.calls.append(tuple(latents.shape))
        return latents.repeat_interleave(4, -1).repeat_interleave(4, -2).movedim(1, -1)


def _context(model):
    return fake_context(loaders={"testing.ae": lambda recipe, ctx: model})


def test_slices_give_what_the_frames_give_one_by_one_whatever_their_number():
    video = fake_video(batch=2, frames=7, height=8, width=12)
    whole = torch.stack([Local().encode(clip) for clip in video.data]).transpose(1, 2)
    for at_once in (None, 1, 3, 100):
        model = Local()
        found = encode_video(_context(model), RECIPE, video, at_once=at_once)
        assert torch.equal(found.data, whole) and found.space == "s" and found.downscale == 4
        assert at_once is None or max(call[0] for call in model.calls) <= at_once
        back = decode_video(_context(model), RECIPE, found, fps=12.0, at_once=at_once)
        assert back.fps == 12.0
        assert torch.equal(back.data[1], Local().decode(whole[1].transpose(0, 1)))


def test_without_a_number_large_frames_go_through_one_by_one():
    """A quarter of a megapixel at a time: four frames of 256x256, whatever the clip's length."""
    model = Local()
    decode_video(_context(model), RECIPE, Latents(torch.rand(1, 3, 9, 64, 64)))
    assert [call[0] for call in model.calls] == [4, 4, 1]


@pytest.mark.parametrize(("tile", "overlap"), [(16, 0), (16, 4), (16, 8), (24, 12), (64, 32)])
def test_tiles_of_a_local_autoencoder_are_the_whole(tile, overlap):
    video = fake_video(frames=2, height=36, width=44)
    plain = encode_video(_context(Local()), RECIPE, video)
    model = Local()
    found = encode_video(_context(model), RECIPE, video, tile=tile, overlap=overlap)
    assert torch.allclose(found.data, plain.data, atol=1e-6)
    assert max(max(call[1:3]) for call in model.calls) <= tile
    whole = decode_video(_context(Local()), RECIPE, plain)
    tiled = decode_video(_context(Local()), RECIPE, plain, tile=tile, overlap=overlap)
    assert torch.allclose(tiled.data, whole.data, atol=1e-6)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 11, 12, 16, 17, 40])
@pytest.mark.parametrize("overlap", [0, 1, 3, 4, 7])
def test_windows_cover_everything_and_their_weights_add_up_to_one(length, overlap):
    starts = even_starts(length, 8, overlap)
    ends = [min(start + 8, length) for start in starts]
    assert starts[0] == 0 and ends[-1] == length
    assert all(end - after >= overlap for end, after in zip(ends, starts[1:], strict=False))
    total = torch.zeros(length, dtype=torch.float64)
    for start, end, weights in zip(starts, ends, blending_weights(starts, ends, overlap), strict=True):
        assert (weights > 0).all()
        total[start:end] += weights
    assert torch.allclose(total, torch.ones_like(total), atol=1e-12)


def test_pixels_as_latents_and_back():
    video = fake_video(batch=2, frames=3)
    latents = to_video_latents(video)
    assert list(latents.data.shape) == [2, 3, 3, 16, 16] and latents.space == "pixels"
    assert torch.allclose(to_video(latents, fps=8.0).data, video.data, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: encode_video(c, RECIPE, Video(torch.zeros(1, 0, 8, 8, 3), 8.0)), "no frames"),
        (lambda c: encode_video(c, RECIPE, fake_video(height=10)), "16x10, wanted multiples of 4"),
        (lambda c: encode_video(c, RECIPE, fake_video(channels=4)), "alpha channel"),
        (lambda c: encode_video(c, RECIPE, fake_video(), tile=16, overlap=12), "over half a tile"),
        (lambda c: encode_video(c, RECIPE, fake_video(), tile=18, overlap=0), "multiples of 4"),
        (lambda c: decode_video(c, RECIPE, Latents(torch.zeros(1, 3, 0, 4, 4))), "wanted latents of clips"),
        (lambda c: decode_video(c, RECIPE, Latents(torch.zeros(1, 4, 2, 4, 4))), "wanted 3 channels"),
        (lambda c: decode_video(c, RECIPE, Latents(torch.zeros(1, 3, 2, 4, 4), space="t")), "different models"),
        (lambda c: to_video(Latents(torch.zeros(1, 3, 2, 4, 4), space="s")), "an autoencoder decodes"),
        (lambda c: to_video(Latents(torch.zeros(1, 8, 2, 4, 4))), "wanted \\[B, 3, F, H, W\\]"),
        (lambda c: to_video_latents(fake_video(channels=4)), "alpha channel"),
        (lambda c: to_video_latents(Video(torch.zeros(1, 0, 8, 8, 3), 8.0)), "no frames"),
    ],
)
def test_clips_that_do_not_fit_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call(_context(Local()))
