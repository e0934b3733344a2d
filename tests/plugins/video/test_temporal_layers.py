"""Temporal layers: nothing at first, the maths they stand for, and what sees what."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny_unets import unet

from mezzotint import UserError
from mezzotint_video.places import Attached, attention_places, residual_places
from mezzotint_video.pseudo3d import TemporalConvolution
from mezzotint_video.temporal_attention import TemporalAttention, relative_buckets
from mezzotint_video.temporal_layers import Clip, TemporalLayers


def layers_of(network: UNet2DConditionModel, **changes: object) -> TemporalLayers:
    torch.manual_seed(1)
    return TemporalLayers(
        convolutions=residual_places(network), attentions=attention_places(network), head=4, context=12,
        embedding=["time_embedding", network.time_embedding.linear_2.out_features], **changes,
    )  # fmt: skip


def stirred(layers: TemporalLayers) -> TemporalLayers:
    """With numbers everywhere, as after training."""
    torch.manual_seed(2)
    for parameter in layers.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return layers.requires_grad_(False)


def run(network: UNet2DConditionModel, layers: TemporalLayers, x: torch.Tensor, clip: Clip) -> torch.Tensor:
    """x: [B, F, C, h, w]."""
    rows = clip.context.repeat_interleave(x.shape[1], 0)
    with Attached(network, layers).on() as attached, attached.over(clip), torch.no_grad():
        out = network(x.flatten(0, 1), torch.tensor(500), encoder_hidden_states=rows, return_dict=False)[0]
    return out.unflatten(0, x.shape[:2])


def inputs(batch: int = 2, frames: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, frames, 4, 8, 8, generator=generator)
    return x, torch.randn(batch, 6, 12, generator=generator)


def test_new_layers_leave_every_frame_bit_identical_to_the_model_of_pictures() -> None:
    network = unet()
    x, context = inputs()
    plain = network(
        x.flatten(0, 1),
        torch.tensor(500),
        encoder_hidden_states=context.repeat_interleave(4, 0),
        return_dict=False,
    )[0]
    for position in ("none", "sinusoidal", "relative", "rotary"):
        made = run(network, layers_of(network, position=position, window=3), x, Clip(2, 4, context=context))
        assert torch.equal(made.flatten(0, 1), plain)


def test_without_hooks_the_network_is_its_own_again() -> None:
    network = unet()
    x, context = inputs()
    run(network, stirred(layers_of(network)), x, Clip(2, 4, context=context))
    assert all(not module._forward_hooks for module in network.modules())


def test_a_clip_of_one_frame_and_frames_apart_pass_as_pictures() -> None:
    network = unet()
    x, context = inputs(frames=1)
    layers = stirred(layers_of(network))
    plain = network(x[:, 0], torch.tensor(500), encoder_hidden_states=context, return_dict=False)[0]
    assert torch.equal(run(network, layers, x, Clip(2, 1, context=context))[:, 0], plain)
    x, context = inputs()
    rows = context.repeat_interleave(4, 0)
    plain = network(x.flatten(0, 1), torch.tensor(500), encoder_hidden_states=rows, return_dict=False)[0]
    made = run(network, layers, x, Clip(2, 4, apart=True, context=context))
    assert torch.equal(made.flatten(0, 1), plain)


def test_trained_layers_let_frames_see_each_other_and_clips_not() -> None:
    network = unet()
    layers = stirred(layers_of(network))
    x, context = inputs()
    before = run(network, layers, x, Clip(2, 4, context=context))
    changed = x.clone()
    changed[0, 3] += 1
    after = run(network, layers, changed, Clip(2, 4, context=context))
    moved = (after - before).abs().flatten(2).amax(2) > 0
    assert moved[0].all() and not moved[1].any()


def test_single_pictures_behind_a_clip_change_nothing_but_themselves() -> None:
    network = unet()
    layers = stirred(layers_of(network))
    x, context = inputs(frames=6)
    clip = Clip(2, 4, 2, context=context)
    before = run(network, layers, x, clip)
    changed = x.clone()
    changed[0, 4] += 1
    moved = (run(network, layers, changed, clip) - before).abs().flatten(2).amax(2) > 0
    assert moved.nonzero().tolist() == [[0, 4]]
    plain = network(x[:, 4], torch.tensor(500), encoder_hidden_states=context, return_dict=False)[0]
    assert torch.allclose(before[:, 4], plain, atol=1e-5)


def test_a_temporal_convolution_is_a_3d_convolution_of_one_place_plus_the_identity() -> None:
    torch.manual_seed(0)
    layer = TemporalConvolution(6, kernel=3).double()
    x = torch.randn(2, 5, 6, 3, 4, dtype=torch.float64)
    assert torch.equal(layer(x), x)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    impulse = torch.zeros_like(layer.weight)
    impulse[:, :, 1] = torch.eye(6, dtype=torch.float64)
    whole = (layer.weight + impulse)[..., None, None]
    wanted = torch.nn.functional.conv3d(x.transpose(1, 2), whole, layer.bias, padding=(1, 0, 0)).transpose(1, 2)
    assert torch.allclose(layer(x), wanted, atol=1e-12)


def test_attention_without_positions_turns_with_the_frames() -> None:
    torch.manual_seed(0)
    layer = TemporalAttention(8, head=4, position="none")
    torch.nn.init.normal_(layer.to_out.weight)
    h = torch.randn(2, 5, 6, 8)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(layer(h[:, order], (2, 3)), layer(h, (2, 3))[:, order], atol=1e-5)


@pytest.mark.parametrize("position", ["sinusoidal", "relative", "rotary"])
def test_positions_tell_frames_apart(position: str) -> None:
    torch.manual_seed(0)
    layer = TemporalAttention(8, head=4, position=position)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    h = torch.randn(2, 5, 6, 8)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert not torch.allclose(layer(h[:, order], (2, 3)), layer(h, (2, 3))[:, order], atol=1e-3)


@pytest.mark.parametrize("position", ["relative", "rotary"])
def test_relative_positions_do_not_ask_where_a_clip_begins(position: str) -> None:
    torch.manual_seed(0)
    layer = TemporalAttention(8, head=4, position=position, causal=True).double()
    torch.nn.init.normal_(layer.to_out.weight)
    if layer.buckets is not None:
        torch.nn.init.normal_(layer.buckets.weight)
    query, key = (torch.randn(1, 1, 1, 2, 4, dtype=torch.float64).expand(1, 6, 1, 2, 4) for _ in range(2))
    value = torch.zeros(1, 6, 1, 2, 4, dtype=torch.float64)
    assert value.shape == query.shape
    if position == "relative":
        bias = layer.bias(6, value)
        assert torch.equal(bias[:, 4, 2], bias[:, 3, 1]) and torch.isneginf(bias[:, 1, 2]).all()
    else:
        from mezzotint_video.temporal_attention import _rotated

        logits = torch.einsum("bfphd,bgphd->fg", _rotated(query), _rotated(key))
        assert torch.allclose(logits[4, 2], logits[3, 1]) and not torch.allclose(logits[4, 2], logits[4, 1])


def test_a_causal_layer_sees_no_later_frame() -> None:
    torch.manual_seed(0)
    layer = TemporalAttention(8, head=4, causal=True)
    torch.nn.init.normal_(layer.to_out.weight)
    h = torch.randn(1, 5, 6, 8)
    changed = h.clone()
    changed[:, 2] += torch.randn(8)  # the same number everywhere would be normalised away
    moved = (layer(changed, (2, 3)) - layer(h, (2, 3))).abs().flatten(2).amax(2)[0] > 1e-6
    assert moved.tolist() == [False, False, True, True, True]


def test_a_window_of_one_place_and_of_more_are_the_same_attention_where_the_neighbours_are_empty() -> None:
    """Three by three around the only place of a picture: all neighbours lie beyond the edge and count nothing."""
    torch.manual_seed(0)
    narrow, wide = TemporalAttention(8, head=4), TemporalAttention(8, head=4, window=3)
    torch.nn.init.normal_(narrow.to_out.weight)
    torch.nn.init.normal_(narrow.buckets.weight)
    wide.load_state_dict(narrow.state_dict())
    h = torch.randn(2, 5, 1, 8)
    assert torch.allclose(wide(h, (1, 1)), narrow(h, (1, 1)), atol=1e-6)


def test_a_window_sees_the_neighbourhood_in_every_frame_and_no_more() -> None:
    torch.manual_seed(0)
    layer = TemporalAttention(8, head=4, window=3)
    torch.nn.init.normal_(layer.to_out.weight)
    h = torch.randn(1, 4, 25, 8)
    changed = h.clone()
    changed[:, 3, 12] += torch.randn(8)  # the middle of 5x5, in the last frame
    moved = (layer(changed, (5, 5)) - layer(h, (5, 5))).abs().amax(3)[0].view(4, 5, 5) > 1e-7
    near = torch.zeros(5, 5, dtype=torch.bool)
    near[1:4, 1:4] = True
    assert all(torch.equal(frame, near) for frame in moved)


def test_windowed_attention_is_the_softmax_over_frames_and_neighbours() -> None:
    torch.manual_seed(0)
    layer = TemporalAttention(4, head=4, window=3, position="none").double()
    with torch.no_grad():
        layer.to_out.weight.copy_(torch.eye(4))
    h = torch.randn(1, 2, 9, 4, dtype=torch.float64)
    tokens = layer.norm(h)
    query, key, value = layer.to_q(tokens), layer.to_k(tokens), layer.to_v(tokens)
    # The corner (0, 0) of 3x3 sees four places in each frame.
    seen = [0, 1, 3, 4]
    keys, values = key[0][:, seen].flatten(0, 1), value[0][:, seen].flatten(0, 1)
    wanted = (query[0, 1, 0] @ keys.T / math.sqrt(4)).softmax(0) @ values
    assert torch.allclose(layer(h, (3, 3))[0, 1, 0], wanted, atol=1e-10)


def test_buckets_are_those_of_t5_for_both_directions() -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    frames = 40
    places = torch.arange(frames)
    wanted = T5Attention._relative_position_bucket(
        places[None, :] - places[:, None], bidirectional=True, num_buckets=32, max_distance=32
    )
    assert torch.equal(relative_buckets(frames), wanted)


def test_side_channels_are_read_by_each_frame_and_do_nothing_at_first() -> None:
    network = unet()
    x, context = inputs()
    layers = layers_of(network, side=["conv_in", 8, 3])
    side = torch.randn(2, 4, 3, 8, 8)
    plain = run(network, layers_of(network), x, Clip(2, 4, context=context))
    assert torch.equal(run(network, layers, x, Clip(2, 4, context=context, side=side)), plain)
    torch.nn.init.normal_(layers.side.weight)
    changed = side.clone()
    changed[0, 1] += 1
    moved = run(network, layers, x, Clip(2, 4, context=context, side=changed)) - run(
        network, layers, x, Clip(2, 4, context=context, side=side)
    )
    assert (moved.abs().flatten(2).amax(2) > 0).nonzero().tolist() == [[0, 1]]
    with pytest.raises(UserError, match=r"side channels \[2, 4, 3, 8, 8\].*got none"):
        run(network, layers, x, Clip(2, 4, context=context))
    with pytest.raises(UserError, match="got \\[2, 4, 2, 8, 8\\]"):
        run(network, layers, x, Clip(2, 4, context=context, side=side[:, :, :2]))


def test_what_a_frame_is_told_depends_on_its_time_the_rate_and_the_words() -> None:
    layers = stirred(layers_of(unet()))
    _, context = inputs()
    told = layers.modulation(Clip(2, 4, context=context, fps=torch.tensor([4.0, 8.0])))
    assert told.shape == (2, 4, 128)
    assert not torch.allclose(told[0, 1], told[0, 2])
    faster = layers.modulation(Clip(2, 4, context=context, fps=torch.tensor([8.0, 8.0])))
    assert torch.equal(faster[1], told[1]) and not torch.allclose(faster[0], told[0])
    other = layers.modulation(Clip(2, 4, context=context + 1, fps=torch.tensor([4.0, 8.0])))
    assert not torch.allclose(other, told)
    with pytest.raises(UserError, match="read a text 12 wide; got 5 wide"):
        layers.modulation(Clip(2, 4, context=context[..., :5]))


def test_layers_of_another_model_are_refused_by_the_name_they_miss() -> None:
    network = unet()
    layers = TemporalLayers(convolutions=[["down_blocks.7.resnets.0", 8]])
    with pytest.raises(UserError, match=r"another model.*'down_blocks.7.resnets.0'"):
        Attached(network, layers)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"channels": 8, "head": 3}, "head 3"), ({"channels": 8, "head": 4, "window": 2}, "window 2")],
)
def test_settings_that_make_no_layer_are_refused(settings: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TemporalAttention(**settings)
