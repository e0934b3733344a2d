"""models.tune_decoder: the background comes nearer, the rest stays, the shared model is untouched; bad input."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Image, Mask, UserError
from mezzotint_models import latents as nodes
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.decoder_tuning import tune_decoder

PICTURE = Image(torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0)))
MASK = torch.zeros(1, 16, 16)
MASK[..., 8:] = 1


@pytest.fixture
def autoencoder(tiny):
    return checkpoint(tiny.source).autoencoder


def psnr(made: torch.Tensor, wanted: torch.Tensor, where: torch.Tensor) -> float:
    error = ((made - wanted) ** 2).mean(-1)[where.bool()].mean()
    return float(-10 * error.log10())


def test_the_background_comes_nearer_and_the_foreground_stays_within_a_decibel_of_itself(ctx, autoencoder):
    latents = nodes.encode(ctx, autoencoder, PICTURE)
    before = nodes.decode(ctx, autoencoder, latents).data
    tuned = tune_decoder(ctx, autoencoder, latents, PICTURE, Mask(MASK), steps=60, rate=3e-3)
    with tuned.patches[-1].apply(ctx.realise(autoencoder), ctx) as model, torch.no_grad():
        after = model.decode(latents.data)
    assert psnr(after, PICTURE.data, 1 - MASK) > psnr(before, PICTURE.data, 1 - MASK) + 1
    assert psnr(after, PICTURE.data, MASK) > psnr(before, PICTURE.data, MASK) - 1
    assert torch.equal(nodes.decode(ctx, autoencoder, latents).data, before)


def test_only_the_decoder_moves(ctx, autoencoder):
    latents = nodes.encode(ctx, autoencoder, PICTURE)
    tuned = tune_decoder(ctx, autoencoder, latents, PICTURE, Mask(MASK), steps=2)
    moved = tuned.patches[-1].weights.tensors
    assert moved and all(name.startswith(("decoder.", "post_quant_conv.")) for name in moved)
    with tuned.patches[-1].apply(ctx.realise(autoencoder), ctx) as model, torch.no_grad():
        assert torch.equal(model.encode(PICTURE.data), latents.data)


def test_no_steps_give_the_autoencoder_back(ctx, autoencoder):
    latents = nodes.encode(ctx, autoencoder, PICTURE)
    assert tune_decoder(ctx, autoencoder, latents, PICTURE, Mask(MASK), steps=0) is autoencoder


@pytest.mark.parametrize(
    ("picture", "mask", "rate", "message"),
    [
        (
            (1, 8, 16, 3),
            (1, 16, 16),
            1e-4,
            r"the picture is \[1, 8, 16\].*wanted \[1 or 1, 16, 16\].*give it that size",
        ),
        ((1, 16, 16, 4), (1, 16, 16), 1e-4, "alpha channel; load it with channels 3"),
    ],
)
def test_what_does_not_fit_is_refused(ctx, autoencoder, picture, mask, rate, message):
    latents = nodes.encode(ctx, autoencoder, PICTURE)
    with pytest.raises(UserError, match=message):
        tune_decoder(ctx, autoencoder, latents, Image(torch.rand(*picture)), Mask(torch.ones(*mask)), rate=rate)


def test_an_empty_mask_is_refused_where_latents_get_it(ctx, autoencoder):
    latents = nodes.encode(ctx, autoencoder, PICTURE)
    with pytest.raises(UserError, match="the mask is 0 throughout, so nothing would change; make it white"):
        nodes.set_mask(latents, Mask(torch.zeros(1, 16, 16)))
