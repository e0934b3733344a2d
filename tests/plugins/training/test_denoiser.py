"""The denoiser's objective against diffusers' own schedule."""

from __future__ import annotations

import torch

from mezzotint_training.denoiser import DenoiserObjective, make_denoiser, make_scheduler, velocity
from mezzotint_training.text_encoder import make_text_encoder


def tiny(**options):
    torch.manual_seed(0)
    unet = make_denoiser((8, 16), latent_channels=4, size=8, words=16, heads=2, groups=4)
    text = make_text_encoder(40, width=16, layers=1, heads=2, length=6)
    return DenoiserObjective(unet, text, torch.tensor([38, 39, 39, 39, 39, 39]), **options)


def test_velocity_is_diffusers_velocity():
    objective, scheduler = tiny(), make_scheduler()
    clean, noise = torch.randn(2, 5, 4, 8, 8)
    times = torch.tensor([0, 10, 400, 800, 999])
    alpha, sigma = (table[times, None, None, None] for table in (objective.alpha, objective.sigma))
    torch.testing.assert_close(velocity(clean, noise, alpha, sigma), scheduler.get_velocity(clean, noise, times))


def test_last_step_is_almost_pure_noise():
    objective = tiny()
    assert 50 < objective.sigma[-1] / objective.alpha[-1] < 80


def test_times_are_stratified_and_focus_stays_in_its_range():
    generator = torch.Generator().manual_seed(0)
    objective = tiny()
    parts = objective.times(10, generator) // 100
    assert parts.tolist() == list(range(10))
    focused = tiny(focus=1.0)
    times = focused.times(64, generator)
    ratio = (focused.sigma / focused.alpha)[times]
    assert 1 <= ratio.min() < 1.2
    assert 6 < ratio.max() <= 8.1


def test_loss_falls_and_depends_on_the_generator_alone():
    objective = tiny()
    batch = torch.randn(8, 4, 8, 8), torch.randint(0, 38, (8, 6))
    first, figures = objective.loss(batch, torch.Generator().manual_seed(3))
    again, _ = objective.loss(batch, torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert set(figures) == {"mse0", "mse1", "mse2", "mse3"}
    parameters = [p for module in objective.modules.values() for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3)
    for _ in range(30):
        loss, _ = objective.loss(batch, torch.Generator().manual_seed(3))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.9 * first


def test_words_reach_the_picture_at_every_level():
    objective = tiny()
    crossing = [name for name, _ in objective.unet.named_modules() if name.endswith("attn2")]
    for place in ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"):
        assert any(name.startswith(place) for name in crossing)
    assert objective.unet.add_embedding is not None


def test_dropped_captions_are_the_empty_one():
    objective = tiny(drop=1.0)
    latents = torch.randn(4, 4, 8, 8)
    losses = [
        objective.loss((latents, torch.randint(0, 38, (4, 6))), torch.Generator().manual_seed(1))[0]
        for _ in range(2)
    ]
    assert torch.equal(*losses)
