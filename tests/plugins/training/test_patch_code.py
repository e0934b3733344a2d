"""The autoencoder's linear start: the encoder is the projection, the decoder paints mean colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from mezzotint_training.autoencoder import make_autoencoder, to_model
from mezzotint_training.patch_code import fit, install, patches


@pytest.fixture(scope="module")
def pictures():
    """Smooth random pictures: [12, 64, 64, 3] uint8."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((12, 3, 6, 6), dtype=np.float32))
    fine = functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 1)
    return (255 * fine).permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


def test_all_components_lose_nothing(pictures):
    code, wanted = fit(pictures, 48, whitening=0.0), to_model(torch.from_numpy(pictures))
    torch.testing.assert_close(code.decode(code.encode(wanted)), wanted, atol=1e-4, rtol=0)


def test_latents_have_unit_mean_variance(pictures):
    latents = fit(pictures, 8).encode(to_model(torch.from_numpy(pictures)))
    assert latents.var((0, 2, 3)).mean().item() == pytest.approx(1, rel=0.02)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3


def test_patches_hold_every_pixel_once():
    picture = torch.arange(3 * 64 * 64).view(1, 3, 64, 64).float()
    flat = patches(picture)
    assert flat.shape == (1, 48, 16, 16)
    assert set(flat.flatten().tolist()) == set(picture.flatten().tolist())
    assert set(flat[0, :, 0, 0].tolist()) == set(picture[0, :, :4, :4].flatten().tolist())


@pytest.mark.parametrize(("channels", "groups"), [((32, 32, 64), 4), ((24, 48, 96), 6)])
def test_untrained_encoder_is_the_projection(pictures, channels, groups):
    torch.manual_seed(0)
    model, code = make_autoencoder(channels, 8, groups), fit(pictures, 8)
    install(model, code)
    batch = to_model(torch.from_numpy(pictures))
    with torch.no_grad():
        latents = model.encode(batch).latent_dist.mode()
        painted = model.decode(latents).sample
    torch.testing.assert_close(latents, code.encode(batch), atol=0.06, rtol=0)
    flat = functional.interpolate(functional.avg_pool2d(batch, 4), scale_factor=4)
    assert (painted - flat).square().mean() < 0.02 * flat.var()
