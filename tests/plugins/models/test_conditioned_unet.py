"""The conditioned U-Net: each thing that it is told goes in, in its place, and nothing else does."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from mezzotint import Conditioning, UserError
from mezzotint_models.architecture import unet
from mezzotint_models.conditioned_unet import Entrance

SMALL = {"size": 8, "channels": [8, 16], "head_channels": 8}
TIME = torch.tensor([3.0, 500.0])
KINDS = {
    "joint": {"attention": "joint", "context": 12},
    "cross": {"attention": "cross", "context": 12},
    "none": {},
}


def started(**settings):
    """A network whose closed exits have been opened: all its numbers are random."""
    torch.manual_seed(0)
    module = unet(**SMALL | settings).build().eval().requires_grad_(False)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module


def pictures(channels=3, size=8, seed=1):
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(seed))


def told(**parts):
    return Conditioning(**parts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plain_levels", [0, 1, 2])
def test_each_kind_of_attention_makes_pictures_of_the_same_size(kind, plain_levels):
    module = started(**KINDS[kind], plain_levels=plain_levels, learned_variance=True)
    context = torch.randn(2, 5, 12) if kind != "none" else None
    out = module(pictures(), TIME, told(context=context))
    assert out.shape == (2, 6, 8, 8) and out.isfinite().all() and out.std() > 0


@pytest.mark.parametrize("kind", ["joint", "cross"])
def test_the_output_depends_on_the_text_in_both_kinds_of_reading(kind):
    module = started(**KINDS[kind])
    x, context = pictures(), torch.randn(2, 5, 12)
    other = context.clone()
    other[1, 2] += 1
    first, second = (module(x, TIME, told(context=text)) for text in (context, other))
    assert torch.equal(first[0], second[0]) and (first[1] - second[1]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["joint", "cross"])
@pytest.mark.parametrize("length", [5, 4, 16])
def test_tokens_outside_the_mask_do_not_count(kind, length):
    """Also where there are as many tokens as places, 16 and 4."""
    module = started(**KINDS[kind], plain_levels=0)
    mask = (torch.arange(length) < 3).long().expand(2, -1)
    context = torch.randn(2, length, 12)
    other = context + 5 * (1 - mask)[..., None]
    first = module(pictures(), TIME, told(context=context, mask=mask))
    assert torch.allclose(first, module(pictures(), TIME, told(context=other, mask=mask)), atol=1e-6)
    short = module(pictures(), TIME, told(context=context[:, :3]))
    assert torch.allclose(first, short, atol=1e-5)


def test_without_text_a_joint_layer_is_the_self_attention_of_the_network_without_text():
    """Masked tokens leave the places among themselves; the two kinds have the same names for the rest."""
    joint, alone = started(**KINDS["joint"]), started()
    joint.network.mid_block.attentions[0].group_norm = torch.nn.Identity()  # as diffusers has it there
    theirs = joint.state_dict()
    alone.load_state_dict({name: theirs[name] for name in alone.state_dict()})
    nothing = told(context=torch.randn(2, 5, 12), mask=torch.zeros(2, 5))
    assert torch.allclose(joint(pictures(), TIME, nothing), alone(pictures(), TIME), atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patching_is_exact_and_costs_no_pixel(patch):
    """A network that does nothing gives back every pixel where it was."""
    module = started(patch=patch, channels=[8], low_res=True, extra=2)

    class Nothing(torch.nn.Module):
        class_embedding = None

        def forward(self, x, time, return_dict):
            return (x[:, : 3 * patch**2],)

    seen = []
    module.network = Nothing()
    module.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x, small, extra = pictures(), pictures(size=4, seed=2), pictures(channels=2, seed=3)
    assert torch.equal(module(x, TIME, told(low_res=small, concat=extra)), x)
    low = functional.interpolate(small, (8, 8), mode="bilinear", align_corners=False)
    side = functional.pixel_shuffle(seen[0], patch)
    assert torch.equal(side, torch.cat([x, low, extra], dim=1))


def test_a_pixel_of_a_patch_is_a_channel_of_its_place():
    x = pictures()
    patches = functional.pixel_unshuffle(x, 2)
    assert torch.equal(patches[:, 4 * 2 + 2 * 1 + 0, 3, 1], x[:, 2, 2 * 3 + 1, 2 * 1 + 0])
    assert torch.equal(functional.pixel_shuffle(patches, 2), x)


FULL = {"pooled": 7, "classes": 5, "low_res": True, "level": True, "extra": 4, **KINDS["joint"]}
GIVEN = {
    "context": torch.randn(2, 5, 12), "pooled": torch.randn(2, 7), "label": torch.tensor([0, 5]),
    "low_res": torch.randn(2, 3, 4, 4), "low_res_level": torch.tensor([0.1, 0.9]),
    "concat": torch.randn(2, 4, 8, 8),
}  # fmt: skip


@pytest.fixture(scope="module")
def full():
    return started(**FULL)


@pytest.mark.parametrize("name", GIVEN)
def test_every_part_of_the_conditioning_changes_its_own_sample_and_no_other(full, name):
    first = full(pictures(), TIME, told(**GIVEN))
    changed = GIVEN[name].clone()
    changed[1] = changed[1] - 1 if name == "label" else changed[1] * 0.5
    second = full(pictures(), TIME, told(**GIVEN | {name: changed}))
    assert torch.allclose(first[0], second[0], atol=1e-6)
    assert (first[1] - second[1]).abs().max() > 1e-5


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_needed_and_absent_is_named(full, name):
    with pytest.raises(UserError, match=f"needs '{name}'"):
        full(pictures(), TIME, told(**GIVEN | {name: None}))


@pytest.mark.parametrize("name", [name for name in GIVEN if name != "pooled"])
def test_what_the_network_was_not_made_for_is_refused(name):
    with pytest.raises(UserError, match=f"was not made for '{name}'"):
        started()(pictures(), TIME, told(**{name: GIVEN[name]}))


def test_a_pooled_vector_that_is_not_wanted_is_not_read():
    """Text encoders always give one."""
    module = started()
    assert torch.equal(module(pictures(), TIME, told(pooled=GIVEN["pooled"])), module(pictures(), TIME))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("context", torch.randn(2, 5, 11), r"'context' of shape \[2, any, 12\], got \[2, 5, 11\]"),
        ("pooled", torch.randn(2, 6), r"'pooled' of shape \[2, 7\], got \[2, 6\]"),
        ("label", torch.tensor([0]), r"'label' of shape \[2\], got \[1\]"),
        ("label", torch.tensor([0, 6]), "classes 0 to 4, and 5 for none; got labels"),
        ("label", torch.tensor([-1, 0]), "got labels"),
        ("low_res", torch.randn(2, 1, 4, 4), "'low_res' of shape"),
        ("low_res", torch.randn(2, 3, 16, 4), "larger than its own"),
        ("low_res_level", torch.rand(2, 1), "'low_res_level' of shape"),
        ("concat", torch.randn(2, 4, 4, 4), r"'concat' of shape \[2, 4, 8, 8\]"),
        ("mask", torch.ones(2, 4), r"'mask' of shape \[2, 5\]"),
    ],
)
def test_what_has_another_shape_or_no_such_class_is_refused(full, name, wrong, message):
    with pytest.raises(UserError, match=message):
        full(pictures(), TIME, told(**GIVEN | {name: wrong}))


def test_a_picture_that_does_not_divide_into_patches_and_halvings_is_refused():
    with pytest.raises(UserError, match="multiples of 4, got"):
        started()(torch.randn(1, 3, 8, 6), TIME[:1])
    with pytest.raises(UserError, match="takes"):
        started()(torch.randn(1, 4, 8, 8), TIME[:1])


def test_an_untrained_network_predicts_zero_so_that_its_loss_is_the_noise_s_variance():
    torch.manual_seed(0)
    module = unet(**SMALL, **KINDS["joint"], learned_variance=True).build()
    assert not module(pictures(), TIME, told(context=torch.randn(2, 5, 12))).any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_has_a_gradient_once_the_exits_are_open(kind):
    module = started(**{k: v for k, v in FULL.items() if k not in ("attention", "context")}, **KINDS[kind])
    given = told(**GIVEN if kind != "none" else GIVEN | {"context": None})
    module.requires_grad_(True)
    module(pictures(), TIME, given).square().mean().backward()
    dead = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    # Each group of the normalisation before it takes a bias of the key away: softmax does not see it.
    assert [name for name in dead if not name.endswith("to_k.bias") and "add_k_proj.bias" not in name] == []


def test_side_channels_begin_unseen_and_a_network_without_them_starts_one_that_has_them():
    torch.manual_seed(0)
    plain, wide = started(), unet(**SMALL, extra=4).build().eval()
    theirs = plain.state_dict()
    missing, unknown = wide.load_state_dict(theirs, strict=False)
    assert missing == ["network.conv_in.side"] and unknown == []
    extra = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert torch.allclose(wide(pictures(), TIME, told(concat=extra)), plain(pictures(), TIME), atol=1e-6)


def test_the_entrance_is_one_convolution_over_all_channels():
    torch.manual_seed(0)
    entrance, x = Entrance(3, 2, 8), torch.randn(1, 5, 6, 6)
    torch.nn.init.normal_(entrance.side)
    whole = functional.conv2d(x, torch.cat([entrance.weight, entrance.side], 1), entrance.bias, padding=1)
    apart = functional.conv2d(x[:, :3], entrance.weight, entrance.bias, padding=1) + functional.conv2d(
        x[:, 3:], entrance.side, padding=1
    )
    assert torch.equal(entrance(x), whole) and torch.allclose(whole, apart, atol=1e-5)


def test_joint_and_self_attention_sites_know_the_picture_before_it_was_patched():
    levels = {(s.kind, s.part, s.level) for s in started(**KINDS["joint"], plain_levels=0).attention.sites}
    assert levels == {("joint", "down", 1), ("joint", "down", 2), ("joint", "middle", 2), ("joint", "up", 2),
                      ("joint", "up", 1)}  # fmt: skip
    assert {s.kind for s in started().attention.sites} == {"self"}
    assert {s.kind for s in started(**KINDS["cross"]).attention.sites} == {"self", "cross"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 10}, "size 10 does not divide by 4"),
        ({"channels": [8, 12]}, "multiples of head_channels 8, got 12"),
        ({"attention": "joint"}, "wants the width of its context, got context 0"),
        ({"context": 4}, "wants no context"),
        ({"classes": 3, "class_tokens": 2}, "class_tokens wants classes, and attention that reads tokens"),
        ({"attention": "cross", "context": 4, "class_tokens": 2}, "class_tokens wants classes"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        unet(**SMALL | settings)


def test_an_architecture_over_latents_has_their_channels_and_factor(tiny):
    from mezzotint_models.checkpoint import checkpoint

    autoencoder = checkpoint(tiny.source).autoencoder
    found = unet(autoencoder, **SMALL | {"size": 16, "patch": 1})
    assert (found.channels, found.sample_size, found.downscale) == (4, 8, 2)
    assert found.space == autoencoder.space
    assert found.build()(torch.randn(1, 4, 8, 8), TIME[:1]).shape == (1, 4, 8, 8)


def test_betas_are_those_of_the_kind_of_schedule_unless_given():
    linear = unet(schedule="linear").schedule
    assert (linear.beta_start, linear.beta_end) == (1e-4, 0.02)
    assert dataclasses.astuple(unet(schedule="scaled_linear", beta_end=0.02, prediction="v").schedule) == (
        "scaled_linear", 0.00085, 0.02, 1000, "v", False, 1.0,
    )  # fmt: skip


def test_each_level_may_have_heads_of_its_own_width() -> None:
    made = unet(size=8, channels=[16, 32], head_channels=[4, 16], attention="cross", context=4, plain_levels=0)
    network = made.build().network
    assert network.down_blocks[0].attentions[0].transformer_blocks[0].attn1.heads == 4
    assert network.down_blocks[1].attentions[0].transformer_blocks[0].attn1.heads == 2
    with pytest.raises(UserError, match="one number, or one for each level"):
        unet(size=8, channels=[16, 32], head_channels=[4], attention="cross", context=4)


def test_a_class_as_tokens_is_what_a_text_of_these_tokens_would_tell() -> None:
    own = started(**KINDS["cross"], classes=3, class_tokens=2)
    plain = started(**KINDS["cross"])
    plain.load_state_dict(own.state_dict(), strict=False)
    own.label_embedding.weight.zero_()
    # The block of zeros that a label adds to the time embedding is nothing at all.
    tokens = own.label_tokens.weight[[2, 3]].view(2, 2, 12)
    got = own(pictures(), TIME, told(label=torch.tensor([2, 3])))
    assert torch.allclose(got, plain(pictures(), TIME, told(context=tokens)), atol=1e-5)
    with pytest.raises(UserError, match="was not made for 'context'"):
        own(pictures(), TIME, told(label=torch.tensor([2, 3]), context=tokens))
