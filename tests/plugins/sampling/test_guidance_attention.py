"""Attention guidance on a real, small U-Net: diffusers' own figures, and no trace where it is off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, PAGIdentitySelfAttnProcessor2_0
from scipy.ndimage import gaussian_filter

from mezzotint import Conditioning, NoiseLevel, NoiseSchedule, UserError
from mezzotint.testing import check_node, fake_context, tiny_denoiser
from mezzotint_kernels import normals
from mezzotint_models.unet import UNetPredictor
from mezzotint_sampling.guidance import ClassifierFreePredictor
from mezzotint_sampling.guidance_attention import (
    PerturbedAttention,
    PerturbedPredictor,
    SelfAttention,
    SelfAttentionPredictor,
    chosen_sites,
)
from mezzotint_sampling.guidance_nodes import guide_by_attention
from mezzotint_sampling.guidance_schedule import GuidanceSchedule

LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=2, steps=9)
SHAPE = (2, 4, 8, 16)
MID = "mid_block.attentions.0.transformer_blocks.0.attn1"
X = normals(1, SHAPE)
POSITIVE, NEGATIVE = (Conditioning(context=normals(seed, (2, 5, 8), stream="c")) for seed in (1, 2))


def network() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4,
    ).eval().requires_grad_(False)  # fmt: skip


@dataclass
class Counted:
    """A predictor that counts its evaluations."""

    inner: UNetPredictor
    count: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def predict(self, *arguments: Any) -> Any:
        self.count += 1
        return self.inner.predict(*arguments)


@pytest.fixture(scope="module")
def model() -> UNetPredictor:
    return UNetPredictor(network(), NoiseSchedule())


def called(net: UNet2DConditionModel, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    return net(x, torch.tensor(LEVEL.time), encoder_hidden_states=context).sample


def perturbed(model: UNetPredictor, scale: float = 3.0, **options: Any) -> PerturbedPredictor:
    return PerturbedPredictor(model, chosen_sites(model, ("mid_block",)), scale, **options)


def blurred(model: Any, scale: float = 0.75, **options: Any) -> SelfAttentionPredictor:
    return SelfAttentionPredictor(model, chosen_sites(model, ("mid_block",))[-1], SelfAttention(scale, **options))


def attention_of(net: UNet2DConditionModel, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The attention map of the middle layer, [B, heads, N, N], by diffusers' own arithmetic."""
    found = []

    class Kept(AttnProcessor):
        def __call__(self, layer: Attention, hidden_states: torch.Tensor, **rest: Any) -> torch.Tensor:
            query, key = layer.head_to_batch_dim(layer.to_q(hidden_states)), layer.to_k(hidden_states)
            found.append(layer.get_attention_scores(query, layer.head_to_batch_dim(key)))
            return super().__call__(layer, hidden_states, **rest)

    net.get_submodule(MID).set_processor(Kept())
    called(net, x, context)
    return found[0].unflatten(0, (x.shape[0], -1))


def test_the_perturbed_prediction_is_that_of_diffusers(model: UNetPredictor) -> None:
    theirs = network()
    theirs.get_submodule(MID).set_processor(PAGIdentitySelfAttnProcessor2_0())
    twice = torch.cat((POSITIVE.context, POSITIVE.context))
    plain, worse = called(theirs, torch.cat((X, X)), twice).chunk(2)
    found = perturbed(model).predict(X, LEVEL, POSITIVE)
    torch.testing.assert_close(found.outputs[0], plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.outputs[1], worse, rtol=1e-4, atol=1e-5)
    assert found.weights == (4.0, -3.0)
    assert not torch.isclose(plain, worse, atol=1e-4).all()


def test_the_blurred_prediction_follows_the_paper(model: UNetPredictor) -> None:
    """Hong et al. 2023, algorithm 1, with diffusers' attention map and scipy's filter."""
    net = network()
    eps = called(net, X, POSITIVE.context)
    seen = attention_of(net, X, POSITIVE.context).mean(1).sum(1).view(2, 1, 4, 8)
    mask = (seen > 1.0).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert 0 < mask.float().mean() < 1
    x0 = (X - LEVEL.sigma * eps) / LEVEL.alpha
    filtered = gaussian_filter(x0.numpy(), (0, 0, 1, 1), mode="mirror", truncate=4.0)
    x0 = torch.where(mask, torch.from_numpy(filtered), x0)
    worse = called(network(), LEVEL.alpha * x0 + LEVEL.sigma * eps, POSITIVE.context)
    found = blurred(model).predict(X, LEVEL, POSITIVE)
    torch.testing.assert_close(found.outputs[1], worse, rtol=1e-4, atol=1e-4)
    assert found.weights == (1.75, -0.75)
    assert not torch.isclose(worse, eps, atol=1e-4).all()


@pytest.mark.parametrize("kind", ["v", "x0", "flow"])
def test_blurred_guidance_means_the_same_noise_in_every_parametrisation(kind: Any, model: UNetPredictor) -> None:
    from mezzotint_sampling.wrapped import as_kind, clean, finished

    class Other:
        schedule = replace(model.schedule, prediction=kind)
        attention_sites, inject = model.attention_sites, staticmethod(model.inject)

        def predict(self, x: Any, level: Any, conditioning: Any) -> Any:
            eps = model.predict(x, level, conditioning)
            x0 = clean("eps", level, x, eps.outputs[0])
            return replace(eps, outputs=(as_kind(kind, level, x, x0),), kind=kind)

    wanted = clean("eps", LEVEL, X, finished(blurred(model).predict(X, LEVEL, POSITIVE)))
    other = blurred(Other()).predict(X, LEVEL, POSITIVE)
    torch.testing.assert_close(clean(kind, LEVEL, X, finished(other)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [perturbed, blurred])
@pytest.mark.parametrize("how", ["scale", "interval"])
def test_off_it_asks_once_and_changes_no_bit(make: Callable[..., Any], how: str, model: UNetPredictor) -> None:
    counted = Counted(model)
    if how == "scale":
        guided = make(counted, 0.0)
    else:
        off = GuidanceSchedule(sigma_low=100.0)
        guided = make(counted, strengths=off) if make is perturbed else make(counted, schedule=off)
    found = guided.predict(X, LEVEL, POSITIVE)
    assert counted.count == 1
    assert found.weights == (1.0,)
    assert torch.equal(found.outputs[0], model.predict(X, LEVEL, POSITIVE).outputs[0])


@pytest.mark.parametrize("make", [perturbed, blurred])
def test_it_leaves_no_trace(make: Callable[..., Any], model: UNetPredictor) -> None:
    before = model.predict(X, LEVEL, POSITIVE).outputs[0]
    found = make(model).predict(X, LEVEL, POSITIVE)
    assert torch.equal(found.outputs[0], before)
    assert not any(model._layers.injectors.values())
    assert torch.equal(model.predict(X, LEVEL, POSITIVE).outputs[0], before)


@pytest.mark.parametrize("make", [perturbed, blurred])
def test_over_classifier_free_guidance_the_amounts_add_up(make: Callable[..., Any], model: UNetPredictor) -> None:
    """cfg + s (conditional - worse conditional), as diffusers' pipelines have it; one evaluation more."""
    counted = Counted(model)
    stacked = make(ClassifierFreePredictor(counted, NEGATIVE, 5.0), 2.0).predict(X, LEVEL, POSITIVE)
    assert counted.count == 2
    cfg = ClassifierFreePredictor(model, NEGATIVE, 5.0).predict(X, LEVEL, POSITIVE).combined()
    alone = make(model, 2.0).predict(X, LEVEL, POSITIVE)
    wanted = cfg + 2.0 * (alone.outputs[0] - alone.outputs[1])
    torch.testing.assert_close(stacked.combined(), wanted, rtol=1e-3, atol=1e-4)


def test_both_kinds_over_classifier_free_guidance_add_up(model: UNetPredictor) -> None:
    first = perturbed(ClassifierFreePredictor(model, NEGATIVE, 5.0), 2.0)
    found = blurred(first, 0.5).predict(X, LEVEL, POSITIVE)
    one, two = (make(model, s).predict(X, LEVEL, POSITIVE) for make, s in ((perturbed, 2.0), (blurred, 0.5)))
    cfg = ClassifierFreePredictor(model, NEGATIVE, 5.0).predict(X, LEVEL, POSITIVE).combined()
    wanted = cfg + 2.0 * (one.outputs[0] - one.outputs[1]) + 0.5 * (two.outputs[0] - two.outputs[1])
    torch.testing.assert_close(found.combined(), wanted, rtol=1e-3, atol=1e-4)


def test_over_a_rescaled_model_the_rescaled_one_is_perturbed_too(model: UNetPredictor) -> None:
    from mezzotint_sampling.wrapped import finished

    rescaled = ClassifierFreePredictor(model, NEGATIVE, 5.0, 0.7)
    outer = perturbed(ClassifierFreePredictor(rescaled, NEGATIVE, 2.0), 3.0)
    found = outer.predict(X, LEVEL, POSITIVE)
    plain = finished(rescaled.predict(X, LEVEL, POSITIVE))
    torch.testing.assert_close(found.outputs[0], plain, rtol=1e-4, atol=1e-4)
    with model.inject(lambda call, attend: call.value, chosen_sites(model, ("mid_block",))):
        worse = finished(rescaled.predict(X, LEVEL, POSITIVE))
    torch.testing.assert_close(found.outputs[-1], worse, rtol=1e-4, atol=1e-4)


def test_clips_are_guided_frame_by_frame(model: UNetPredictor) -> None:
    clip = torch.stack((X, X.flip(0)), dim=2)
    for make in (perturbed, blurred):
        found = make(model).predict(clip, LEVEL, POSITIVE).combined()
        for frame in range(2):
            wanted = make(model).predict(clip[:, :, frame], LEVEL, POSITIVE).combined()
            torch.testing.assert_close(found[:, :, frame], wanted, rtol=1e-3, atol=1e-4)


def test_at_pure_noise_there_is_nothing_to_blur(model: UNetPredictor) -> None:
    level = NoiseLevel(0.0, 1.0, 999.0)
    assert blurred(model).predict(X, level, POSITIVE).weights == (1.0,)


def test_a_denoiser_without_such_layers_is_refused(model: UNetPredictor, random_model: Any) -> None:
    with pytest.raises(UserError, match=rf"name begins with 'nowhere'; the denoiser has: .*{MID}"):
        chosen_sites(model, ("nowhere",))
    with pytest.raises(UserError, match="needs a denoiser with self-attention"):
        next(iter(PerturbedAttention(3.0).apply(random_model(), fake_context()).gen))


def test_the_patches_say_that_they_need_the_model_for_themselves() -> None:
    assert PerturbedAttention.mutates
    assert SelfAttention.mutates


def test_the_node_keeps_what_every_node_promises() -> None:
    for how, kind in (("perturbed", PerturbedAttention), ("blurred", SelfAttention)):
        made = check_node(guide_by_attention, denoiser=tiny_denoiser(), how=how, scale=2.0, layers=["up_blocks.1"])
        (patch,) = made["denoiser"].patches
        assert isinstance(patch, kind)
        assert (patch.scale, patch.layers) == (2.0, ("up_blocks.1",))
    assert np.isfinite(patch.blur)
