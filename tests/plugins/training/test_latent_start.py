"""A U-Net of pixels out of the bundled latent one: the same function, where the latents say all there is."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch.nn.functional import conv2d

from mezzotint import Source, UserError
from mezzotint.testing import fake_context
from mezzotint_models import Architecture, trunk_tensors
from mezzotint_smallworld import SOURCE, resolve_source
from mezzotint_training.diffusion_task import freeze
from mezzotint_training.latent_start import _linear, start_from_latents


@cache
def bundled() -> Any:
    from mezzotint_models.checkpoint import checkpoint

    return checkpoint(Source(SOURCE, str(resolve_source(SOURCE)), "0"))


def architecture(variance: bool = False, **settings: Any) -> Architecture:
    from mezzotint_models.architecture import unet

    shape = {"plain_levels": 0, "attention": "cross", "context": 128, "pooled": 128, "head_channels": [16, 32]}
    return unet(size=8, channels=[64, 128], learned_variance=variance, **{**shape, **settings})


def source() -> Source:
    return Source(SOURCE, str(resolve_source(SOURCE)), "0")


def started(made: Architecture, **settings: Any) -> dict[str, torch.Tensor]:
    found = start_from_latents(fake_context(), made, bundled().autoencoder, source=source(), **settings)
    return {name.removeprefix("unet/"): tensor for name, tensor in found.tensors.items()}


def test_the_ends_are_the_latent_networks_own_behind_the_code() -> None:
    code, offset = _linear(fake_context().realise(bundled().autoencoder), 2, 4)
    old, new = trunk_tensors(source()), started(architecture())
    z = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    p = torch.einsum("pc,bcij->bpij", torch.linalg.pinv(code), z - offset.view(1, -1, 1, 1))
    wanted = conv2d(z, old["network.conv_in.weight"].float(), old["network.conv_in.bias"].float())
    got = conv2d(p, new["network.conv_in.weight"], new["network.conv_in.bias"])
    assert torch.allclose(got, wanted, atol=1e-3)
    hidden = torch.randn(1, 64, 6, 6, generator=torch.Generator().manual_seed(1))
    latents = conv2d(hidden, old["network.conv_out.weight"].float(), old["network.conv_out.bias"].float())
    pixels = conv2d(hidden, new["network.conv_out.weight"], new["network.conv_out.bias"])
    assert torch.allclose(torch.einsum("cp,bpij->bcij", code, pixels), latents, atol=1e-3)


def test_what_the_latents_leave_out_is_not_lost_at_the_entrance() -> None:
    code, _ = _linear(fake_context().realise(bundled().autoencoder), 2, 4)
    weight = started(architecture())["network.conv_in.weight"]
    left_out = torch.eye(12) - torch.linalg.pinv(code) @ code
    assert torch.einsum("opij,pq->oqij", weight, left_out).abs().max() > 0.01


def test_all_of_the_trunk_is_taken_and_the_learned_variance_begins_between_its_bounds() -> None:
    made = architecture(variance=True)
    new, own = started(made), made.build().state_dict()
    assert {name for name in own if name not in new} == {"pooled_projection.weight", "pooled_projection.bias"}
    assert all(new[name].shape == value.shape for name, value in own.items() if name in new)
    assert new["network.conv_out.weight"][:12].any() and not new["network.conv_out.weight"][12:].any()


def test_an_encoder_is_mapped_onto_the_one_that_is_known() -> None:
    text, captions = (
        bundled().text_encoder,
        ["a large red circle", "a blue star on a white background", "a ring"] * 4,
    )
    same = started(architecture(), known=text, read=text, captions=captions)
    tokens = fake_context().realise(text).condition(captions).context.flatten(0, 1)
    for name, old in trunk_tensors(source()).items():
        if name.endswith("attn2.to_k.weight"):
            wanted, got = tokens @ old.float().T, tokens @ same[name].T
            assert (got - wanted).norm() < 0.05 * wanted.norm()


def test_an_encoder_that_is_not_linear_is_refused() -> None:
    class Squashed:
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            small = pixels.movedim(-1, 1)[..., ::4, ::4].repeat(1, 3, 1, 1)[:, :8]
            return torch.sin(40 * small)

    odd = bundled().autoencoder.replace(loader="test.odd", source=Source("odd", "", "1"))
    ctx = fake_context(loaders={"test.odd": lambda recipe, ctx: Squashed()})
    with pytest.raises(UserError, match="encoder is not linear"):
        start_from_latents(ctx, architecture(), odd, source=source())


CLASSES = ["a ring", "a star"]


def test_classes_begin_as_what_the_text_encoder_makes_of_them_and_of_nothing() -> None:
    text = bundled().text_encoder
    made = architecture(pooled=0, classes=2, class_tokens=32)
    found = started(made, known=text, classes=CLASSES)
    wanted = fake_context().realise(text).condition([*CLASSES, ""]).context
    assert torch.equal(found["label_tokens.weight"].view(3, 32, 128), wanted)
    assert not found["label_embedding.weight"].any()
    assert all(value.shape == found[name].shape for name, value in made.build().state_dict().items())


@pytest.mark.parametrize(
    ("settings", "words", "message"),
    [
        ({"classes": 2}, CLASSES, "wants `known`, and an architecture with class_tokens"),
        ({"classes": 2, "class_tokens": 4}, ["a ring"], "got 1 words for 2 classes"),
        ({"classes": 2, "class_tokens": 99}, CLASSES, "are 99 tokens of width 128, and `known` makes 32"),
    ],
)
def test_classes_that_are_not_the_networks_are_refused(settings: Any, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        started(architecture(**settings), known=bundled().text_encoder, classes=words)


def test_frozen_patterns_freeze_what_they_name_and_nothing_else() -> None:
    network = architecture().build()
    freeze(network, ["network.mid_block.*", "network.*.attn1.*"])
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    named = [name for name, _ in network.named_parameters()]
    assert frozen == {name for name in named if name.startswith("network.mid_block.") or ".attn1." in name}
    with pytest.raises(UserError, match=r"'network\.middle' fits no parameter"):
        freeze(network, ["network.middle"])
    with pytest.raises(UserError, match="nothing to train"):
        freeze(network, ["*"])
