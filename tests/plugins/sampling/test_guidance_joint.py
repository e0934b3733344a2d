"""Attention guidance of a network whose places read text and each other in one softmax."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, NoiseLevel, NoiseSchedule
from mezzotint_kernels import normals
from mezzotint_models import start_network
from mezzotint_models.denoiser import NetworkPredictor
from mezzotint_sampling.guidance_attention import (
    PerturbedPredictor,
    SelfAttention,
    SelfAttentionPredictor,
    chosen_sites,
)

LEVEL = NoiseLevel(0.6, 0.8, 500.0)
X = normals(1, (2, 3, 8, 8))
CONTEXT = normals(2, (2, 5, 12))
UNHEARD = Conditioning(context=CONTEXT, mask=torch.zeros(2, 5))
SITES = ("down_blocks.1", "mid_block")


@pytest.fixture(scope="module")
def models():
    """A network that reads text, and the one with the same numbers that cannot."""
    config = {"patch": 1, "channels": [8, 16], "plain_levels": 1, "head_channels": 8, "groups": 2}
    torch.manual_seed(0)
    joint = start_network("mezzotint.unet", {**config, "attention": "joint", "context": 12}).eval()
    alone = start_network("mezzotint.unet", config).eval()
    for parameter in joint.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    joint.network.mid_block.attentions[0].group_norm = torch.nn.Identity()  # as diffusers has it without text
    numbers = joint.state_dict()
    alone.load_state_dict({name: numbers[name] for name in alone.state_dict()})
    schedule = NoiseSchedule(kind="cosine")
    return [NetworkPredictor(net.requires_grad_(False), schedule) for net in (joint, alone)]


def perturbed(model):
    return PerturbedPredictor(model, chosen_sites(model, SITES), 2.0)


def blurred(model):
    return SelfAttentionPredictor(model, chosen_sites(model, SITES)[-1], SelfAttention(2.0, SITES, blur=1.5))


@pytest.mark.parametrize("guided", [perturbed, blurred])
def test_where_no_text_counts_it_is_that_of_self_attention(models, guided):
    joint, alone = (guided(model) for model in models)
    found, wanted = joint.predict(X, LEVEL, UNHEARD), alone.predict(X, LEVEL, None)
    assert found.weights == wanted.weights == (3.0, -2.0)
    for one, other in zip(found.outputs, wanted.outputs, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert (found.outputs[0] - found.outputs[1]).abs().max() > 1e-3


def test_the_perturbed_prediction_reads_no_text_at_the_chosen_layers(models):
    """All layers that read it are chosen here, so nothing of it is left."""
    model = models[0]
    everywhere = ("down_blocks", "mid_block", "up_blocks")
    guided = PerturbedPredictor(model, chosen_sites(model, everywhere), 2.0)
    first, second = (guided.predict(X, LEVEL, Conditioning(context=text)) for text in (CONTEXT, -CONTEXT))
    assert torch.equal(first.outputs[1], second.outputs[1])
    assert not torch.equal(first.outputs[0], second.outputs[0])
