"""Attention sites: what a denoiser offers, and how injectors stack there."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from mezzotint import AttentionSite, Conditioning, NoiseLevel, NoiseSchedule, UserError
from mezzotint_kernels import attention
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.unet import UNetPredictor

LEVEL = NoiseLevel(alpha=0.6, sigma=0.8, time=500.0, step=3, steps=20)


@pytest.fixture
def model(tiny, ctx):
    return ctx.realise(checkpoint(tiny.source).denoiser)


def predict(model, x=None, **conditioning):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)) if x is None else x
    context = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(2))
    return model.predict(x, LEVEL, Conditioning(context=context, **conditioning)).combined()


def test_each_site_says_where_it_is(model):
    sites = model.attention_sites
    assert len(sites) == 2 * (2 + 1 + 3)
    assert sites[0] == AttentionSite(
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1", "self", "down", 0, 8, 4
    )
    assert {s.kind for s in sites} == {"self", "cross"}
    assert {(s.part, s.level) for s in sites} == {("down", 0), ("middle", 1), ("up", 0)}


def test_an_injector_sees_every_call_of_its_sites_with_its_level_and_the_picture_s_size(model):
    seen = []

    def watch(call, attend):
        seen.append((call.site.name, tuple(call.query.shape), tuple(call.key.shape), call.size, call.level))
        return attend(call)

    plain = predict(model)
    cross = [s for s in model.attention_sites if s.kind == "cross"]
    with model.inject(watch, cross):
        watched = predict(model)
    assert torch.equal(plain, watched)
    assert [name for name, *_ in seen].count("mid_block.attentions.0.transformer_blocks.0.attn2") == 1
    by_name = {name: rest for name, *rest in seen}
    assert by_name["mid_block.attentions.0.transformer_blocks.0.attn2"] == [
        (2, 8, 16, 8), (2, 8, 16, 8), (4, 4), LEVEL,
    ]  # fmt: skip
    assert by_name[cross[0].name] == [(2, 8, 64, 4), (2, 8, 16, 4), (8, 8), LEVEL]


def test_the_size_rounds_up_as_the_network_does(model):
    sizes = set()

    def watch(call, attend):
        sizes.add((call.site.part, call.size))
        return attend(call)

    with model.inject(watch, model.attention_sites):
        predict(model, torch.zeros(2, 4, 8, 6))
    assert sizes == {("down", (8, 6)), ("middle", (4, 3)), ("up", (8, 6))}


def test_injectors_stack_the_last_one_outermost(model):
    order = []

    def named(name, scale):
        def injector(call, attend):
            order.append(name)
            return attend(call) * scale

        return injector

    site = model.attention_sites[:1]
    with model.inject(named("first", 2.0), site), model.inject(named("second", 0.5), site):
        both = predict(model)
    assert order == ["second", "first"]
    assert torch.equal(both, predict(model))


def test_an_injector_may_compute_attention_itself(model):
    def swapped(call, attend):
        return attention(call.query, call.key.flip(0), call.value.flip(0))

    cross = [s for s in model.attention_sites if s.kind == "cross"]
    with model.inject(swapped, cross):
        found = predict(model)
    context = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(2)).flip(0)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    wanted = model.predict(x, LEVEL, Conditioning(context=context)).combined()
    torch.testing.assert_close(found, wanted)


def test_an_injector_leaves_no_trace_even_when_the_run_fails(model):
    plain = predict(model)

    def broken(call, attend):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), model.inject(broken, model.attention_sites):
        predict(model)
    assert torch.equal(predict(model), plain)


def test_a_selection_of_nothing_and_a_stranger_s_site_are_refused(model):
    with pytest.raises(UserError, match="no attention site"), model.inject(lambda c, a: a(c), []):
        pass
    stranger = AttentionSite("elsewhere", "self", "down", 0, 1, 1)
    with pytest.raises(UserError, match="'elsewhere'"), model.inject(lambda c, a: a(c), [stranger]):
        pass


def test_masked_words_are_not_read(model):
    """The mask goes through as a bias for each key."""
    mask = torch.ones(2, 16)
    mask[:, 8:] = 0
    context = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(2))
    x = torch.randn(2, 4, 8, 8)
    masked = model.predict(x, LEVEL, Conditioning(context=context, mask=mask)).combined()
    short = model.predict(x, LEVEL, Conditioning(context=context[:, :8])).combined()
    torch.testing.assert_close(masked, short, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_layers_on_pictures_equal_diffusers_own(size):
    """A pixel U-Net's attention has a group norm, a residual and four axes."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8, norm_num_groups=8,
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        wanted = network(x, 10).sample
        from mezzotint_models.attention import AttentionLayers

        layers = AttentionLayers(network)
        assert [(s.kind, s.part, s.level) for s in layers.sites] == [
            ("self", "down", 1), ("self", "up", 1), ("self", "up", 1), ("self", "middle", 1),
        ]  # fmt: skip
        assert torch.equal(network(x, 10).sample, wanted)


@pytest.mark.parametrize("masked", [False, True])
def test_a_joint_layer_equals_the_one_of_diffusers_and_is_a_site_of_its_own_kind(masked):
    """Keys of a text in front of the picture's own (GLIDE). Seven tokens: another number than places anywhere."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32,), layers_per_block=1,
        down_block_types=("SimpleCrossAttnDownBlock2D",), up_block_types=("SimpleCrossAttnUpBlock2D",),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=16, attention_head_dim=8,
        norm_num_groups=8,
    ).eval()  # fmt: skip
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 16)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1] * 7]) if masked else None
    with torch.no_grad():
        wanted = network(x, 10, context, encoder_attention_mask=mask).sample
        predictor = UNetPredictor(network, NoiseSchedule())
        found = network(x, 10, context, encoder_attention_mask=mask).sample
    assert torch.allclose(found, wanted, atol=1e-6)
    assert {site.kind for site in predictor.attention_sites} == {"joint"}
