"""models.encode, models.decode and models.set_mask."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Image, Latents, Mask, UserError
from mezzotint_models import latents as nodes
from mezzotint_models.checkpoint import checkpoint


@pytest.fixture
def autoencoder(tiny):
    return checkpoint(tiny.source).autoencoder


def test_latents_are_scaled_once_and_know_their_space(ctx, tiny, autoencoder):
    image = Image(torch.rand(2, 16, 12, 3))
    found = nodes.encode(ctx, autoencoder, image)
    with torch.no_grad():
        bare = tiny.vae.encode(image.data.movedim(-1, 1).contiguous() * 2 - 1).latent_dist.mode()
    assert torch.equal(found.data / 0.18215, bare * 0.18215 / 0.18215)
    assert (found.space, found.downscale, tuple(found.data.shape)) == (autoencoder.space, 2, (2, 4, 8, 6))
    back = nodes.decode(ctx, autoencoder, found)
    assert tuple(back.data.shape) == (2, 16, 12, 3) and back.data.dtype == torch.float32
    assert back.data.min() >= 0 and back.data.max() <= 1


def test_a_grey_picture_is_three_equal_channels(ctx, autoencoder):
    grey = torch.rand(1, 8, 8, 1)
    one = nodes.encode(ctx, autoencoder, Image(grey))
    assert torch.equal(one.data, nodes.encode(ctx, autoencoder, Image(grey.repeat(1, 1, 1, 3))).data)


def test_a_large_batch_goes_in_portions_and_reports_them(ctx, services, autoencoder, monkeypatch):
    monkeypatch.setattr(nodes, "_PIXELS_AT_ONCE", 2 * 8 * 8)
    data = torch.rand(5, 4, 4, 4)
    pictures = nodes.decode(ctx, autoencoder, Latents(data, space=autoencoder.space))
    assert services.steps == [(2, 5), (4, 5), (5, 5)]
    single = nodes.decode(ctx, autoencoder, Latents(data[4:], space=autoencoder.space))
    torch.testing.assert_close(pictures.data[4:], single.data, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 15, 16, 3), "wanted multiples of 2; image.resize with multiple_of 2 makes it 16x14"),
        ((1, 16, 16, 4), "alpha channel"),
    ],
)
def test_pictures_that_cannot_be_encoded_say_what_helps(ctx, autoencoder, shape, message):
    with pytest.raises(UserError, match=message):
        nodes.encode(ctx, autoencoder, Image(torch.rand(*shape)))


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (Latents(torch.zeros(1, 4, 4, 4), space="kl-f8c4-x0.13025"), "come from different models"),
        (Latents(torch.zeros(1, 8, 4, 4)), "wanted 4 channels, got 8"),
        (Latents(torch.zeros(1, 4, 2, 4, 4)), "latents of pictures"),
    ],
)
def test_latents_of_another_space_are_not_decoded(ctx, services, autoencoder, latents, message):
    with pytest.raises(UserError, match=message):
        nodes.decode(ctx, autoencoder, latents)
    assert services.realised == []


def test_a_latent_may_change_if_any_pixel_under_it_should():
    mask = torch.zeros(1, 8, 8)
    mask[0, 3, 3] = 1
    latents = Latents(torch.zeros(2, 4, 2, 2), downscale=4)
    covered = nodes.set_mask(latents, Mask(mask)).mask
    assert tuple(covered.shape) == (2, 1, 2, 2) and covered[:, 0].flatten(1).tolist() == [[1, 0, 0, 0]] * 2
    soft = nodes.set_mask(latents, Mask(mask), cover=False).mask
    assert soft[0, 0].flatten().tolist() == [1 / 16, 0, 0, 0]


def test_masks_of_clips_follow_their_frames():
    clip = Latents(torch.zeros(2, 4, 3, 2, 2))
    per_frame = torch.zeros(1, 3, 8, 8)
    per_frame[0, 1] = 1
    moving = nodes.set_mask(clip, Mask(per_frame)).mask
    assert tuple(moving.shape) == (2, 1, 3, 2, 2) and moving[1, 0].mean(dim=(1, 2)).tolist() == [0, 1, 0]
    still = nodes.set_mask(clip, Mask(torch.ones(2, 8, 8))).mask
    assert tuple(still.shape) == (2, 1, 3, 2, 2) and still.min() == 1


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 1), (1, 5, 8, 8)])
def test_a_mask_that_does_not_fit_is_refused(shape):
    with pytest.raises(UserError, match="the mask is"):
        nodes.set_mask(Latents(torch.zeros(2, 4, 2, 2)), Mask(torch.ones(*shape)))


def test_the_memory_layout_of_a_picture_does_not_change_its_latents(ctx, autoencoder):
    data = torch.rand(1, 8, 8, 3)
    strided = data.movedim(-1, 1).contiguous().movedim(1, -1)
    assert strided.stride() != data.stride()
    first, second = (nodes.encode(ctx, autoencoder, Image(d)).data for d in (data, strided))
    assert torch.equal(first, second)
    assert nodes.decode(ctx, autoencoder, Latents(first)).data.is_contiguous()
