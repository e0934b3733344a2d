"""What every node promises, checked on the models nodes."""

from __future__ import annotations

import pytest
import torch

import mezzotint_models
from mezzotint import Image, Latents, Mask
from mezzotint.testing import check_node, fake_context
from mezzotint_models.checkpoint import checkpoint


def _nodes() -> dict:
    found: list = []
    mezzotint_models.register_nodes(found.append)
    return {fn.__mezzotint_node__.id: fn for fn in found}


@pytest.fixture
def context():
    loaders: dict = {}
    mezzotint_models.register_loaders(loaders.__setitem__)
    return fake_context(loaders=loaders)


def test_models_nodes_keep_every_node_s_promises(tiny, context):
    made = checkpoint(tiny.source)
    latents = Latents(torch.randn(1, 4, 4, 4), space=made.autoencoder.space, downscale=2)
    calls = {
        "models.checkpoint": {"source": tiny.source},
        "models.pack": {"source": tiny.source},
        "models.set_mask": {"latents": latents, "mask": Mask(torch.rand(1, 8, 8))},
        "models.encode_text": {"encoder": made.text_encoder, "text": ["a red circle", ""]},
        "models.encode": {"autoencoder": made.autoencoder, "image": Image(torch.rand(1, 8, 8, 3))},
        "models.decode": {"autoencoder": made.autoencoder, "latents": latents},
    }
    assert set(calls) == set(_nodes())
    for name, inputs in calls.items():
        check_node(_nodes()[name], ctx=context, **inputs)
