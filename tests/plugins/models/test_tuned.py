"""Differences on a model: put on, taken off, and refused where they do not belong."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, NoiseLevel, UserError, Weights
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.tuned import tuned

LEVEL = NoiseLevel(alpha=0.6, sigma=0.8, time=500.0)
NAME = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def differences(tensors):
    return Weights(tensors, target="differences", meta={"class": "differences", "tuned": {"of": "tiny"}})


def test_a_tuned_denoiser_is_the_network_with_its_weights_moved_and_the_pools_own_is_left_alone(tiny, ctx):
    change = 0.1 * torch.randn(tiny.unet.get_parameter(NAME).shape)
    denoiser = checkpoint(tiny.source).denoiser
    x, told = torch.randn(1, 4, 8, 8), Conditioning(context=torch.randn(1, 16, 64))
    model = ctx.realise(denoiser)
    before = model.predict(x, LEVEL, told).combined()
    (patch,) = tuned(denoiser, differences({NAME: change})).patches
    with patch.apply(model, ctx) as patched:
        inside = patched.predict(x, LEVEL, told).combined()
    kept = tiny.unet.get_parameter(NAME)
    with torch.no_grad():
        was = kept.clone()
        kept.add_(change)
        wanted = tiny.unet(x, 500, encoder_hidden_states=told.context).sample
        kept.copy_(was)
    assert torch.equal(inside, wanted)
    assert not torch.equal(inside, before)
    assert torch.equal(model.predict(x, LEVEL, told).combined(), before)


def test_small_changes_count_in_half_precision_as_far_as_it_goes(tiny, ctx):
    model = ctx.realise(checkpoint(tiny.source).denoiser)
    model.module.half()
    value = model.module.get_parameter(NAME)
    change = torch.full(value.shape, 3e-4)
    (patch,) = tuned(checkpoint(tiny.source).denoiser, differences({NAME: change})).patches
    was = value.detach().clone()
    with patch.apply(model, ctx):
        assert torch.equal(value, (was.float() + change).half())
    assert torch.equal(value, was)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"somewhere.weight": torch.zeros(2)}, r"tuned on another model: this one has no somewhere\.weight"),
        ({NAME: torch.zeros(2, 2)}, r"tuned on another model: .*to_k\.weight has shape \[2, 2\], here \[64, 64\]"),
    ],
)
def test_differences_to_another_model_are_refused_and_change_nothing(tiny, ctx, tensors, message):
    model = ctx.realise(checkpoint(tiny.source).denoiser)
    (patch,) = tuned(checkpoint(tiny.source).denoiser, differences(tensors)).patches
    with pytest.raises(UserError, match=message), patch.apply(model, ctx):
        pass
    assert torch.equal(model.module.get_parameter(NAME), tiny.unet.get_parameter(NAME))


def test_weights_of_another_kind_are_no_differences(tiny):
    with pytest.raises(UserError, match="tuned"):
        tuned(checkpoint(tiny.source).denoiser, Weights({}, target="UNet", meta={"class": "UNet", "config": {}}))
    with pytest.raises(UserError, match="give either weights along an edge"):
        tuned(checkpoint(tiny.source).denoiser)


def test_the_recipe_stays_as_it_was_apart_from_the_patch(tiny):
    denoiser = checkpoint(tiny.source).denoiser
    made = tuned(denoiser, differences({NAME: torch.zeros(64, 64)}))
    assert made.source is denoiser.source and denoiser.patches == ()


def test_a_tensor_that_is_moved_twice_is_what_it_was_afterwards():
    from mezzotint_models.tuned import moved

    weight = torch.tensor([1.0, 2.0])
    with moved({"w": weight}, [("w", torch.ones(2)), ("w", torch.ones(2))], 0.5):
        assert torch.equal(weight, torch.tensor([2.0, 3.0]))
    assert torch.equal(weight, torch.tensor([1.0, 2.0]))
