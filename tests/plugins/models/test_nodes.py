"""What every node promises, checked on the models nodes."""

from __future__ import annotations

import pytest
import torch

import mezzotint_models
from mezzotint import Image, Latents, Mask, Weights
from mezzotint.testing import check_node, fake_context, fake_video
from mezzotint_image.tensors import write_weights
from mezzotint_models import pack_lora, pack_network, pack_words
from mezzotint_models.architecture import unet
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.denoiser import denoiser
from mezzotint_models.label_encoders import label_encoder
from mezzotint_models.label_networks import ClassTokens, LayoutEncoder
from mezzotint_models.noisy_encoder import NoisyEncoder


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
    clip = latents.replace(data=torch.randn(1, 4, 3, 8, 8))
    calls = {
        "models.checkpoint": {"source": tiny.source},
        "models.pack": {"source": tiny.source},
        "models.set_mask": {"latents": latents, "mask": Mask(torch.rand(1, 8, 8))},
        "models.encode_text": {"encoder": made.text_encoder, "text": ["a red circle", ""]},
        "models.encode": {"autoencoder": made.autoencoder, "image": Image(torch.rand(1, 8, 8, 3))},
        "models.decode": {"autoencoder": made.autoencoder, "latents": latents},
        "models.encode_video": {
            "autoencoder": made.autoencoder,
            "video": fake_video(height=8, width=8),
            "at_once": 2,
        },
        "models.decode_video": {"autoencoder": made.autoencoder, "latents": clip, "tile": 8, "overlap": 4},
        "models.tune_decoder": {
            "autoencoder": made.autoencoder,
            "latents": latents,
            "image": Image(torch.rand(1, 8, 8, 3)),
            "mask": Mask(torch.ones(1, 8, 8)),
            "steps": 1,
        },
    }
    for name, inputs in calls.items():
        check_node(_nodes()[name], ctx=context, **inputs)
    # What reads language models and CLIP has fixtures of its own: test_language_model.py, test_clip_towers.py.
    elsewhere = {"models.language_model", "models.leave_out", "models.put_back"}
    elsewhere |= {"models.image_encoder", "models.encode_image", "models.text_encoder"}
    # test_merging.py, test_experts.py.
    elsewhere |= {"models.merge_concepts", "models.mixture_of_experts"}
    for name, inputs in {
        "models.to_video_latents": {"video": fake_video()},
        "models.to_video": {"latents": Latents(torch.rand(1, 3, 2, 4, 4), space="pixels")},
    }.items():
        check_node(_nodes()[name], **inputs)
        elsewhere.add(name)
    assert set(calls) | set(_of_weights(tiny)) | elsewhere == set(_nodes())


def _of_weights(tiny) -> dict:
    """Calls of the nodes that take weights which say what they are."""
    architecture = unet(size=8, channels=[8, 16], head_channels=8, classes=2)
    network = pack_network(architecture.build(), denoiser=architecture.record())
    coded = {"channels": 4, "downscale": 2, "space": "tiny"}
    names = {"class": pack_network(ClassTokens(["ring", "star"], 8), label_encoder={"kind": "class"})}
    names["layout"] = pack_network(LayoutEncoder(["ring"], 4, 2, 8, 1, 2), label_encoder={"kind": "layout"})
    judge = NoisyEncoder(size=8, channels=[8, 8], head_channels=8, outputs=2)
    adapter = pack_lora({"q.lora_A.weight": torch.randn(2, 3), "q.lora_B.weight": torch.randn(4, 2)})
    words = pack_words({"<thing>": torch.randn(2, 64)})
    moved = {name: tensor * 0.01 for name, tensor in network.tensors.items()}
    return {
        "models.unet": {"size": 16, "attention": "joint", "context": 4},
        "models.denoiser": {"weights": network},
        "models.cast": {"weights": network},
        "models.autoencoder": {"weights": pack_network(tiny.vae, autoencoder=coded)},
        "models.classifier": {"weights": pack_network(judge, classifier={"classes": ["ring", "star"]})},
        "models.label_encoder": {"weights": names["class"]},
        "models.encode_labels": {"encoder": label_encoder(names["class"]), "labels": ["star", None]},
        "models.encode_layout": {
            "encoder": label_encoder(names["layout"]), "boxes": [{"what": "ring", "box": [0.1, 0.1, 0.6, 0.7]}],
        },
        "models.tuned": {
            "denoiser": denoiser(network),
            "weights": Weights(moved, target="difference", meta={"class": "x", "config": {}, "tuned": {}}),
        },
        "models.compress_tuned": {
            "weights": Weights(
                {"q.weight": torch.randn(4, 3)}, target="differences",
                meta={"class": "x", "config": {}, "tuned": {}},
            ),
        },
        "models.lora": {"denoiser": denoiser(network), "weights": adapter},
        "models.text_lora": {
            "encoder": checkpoint(tiny.source).text_encoder,
            "weights": pack_lora(dict(adapter.tensors), role="text_lora"),
        },
        "models.apply_lora": {
            "denoiser": denoiser(network), "encoder": checkpoint(tiny.source).text_encoder, "source": adapter,
        },
        "models.export_lora": {"weights": adapter},
        "models.read_lora": {"source": adapter},
        "models.learnt_words": {"encoder": checkpoint(tiny.source).text_encoder, "weights": words},
        "models.export_words": {"weights": words},
        "models.read_words": {"source": words},
        "models.to_latents": {"image": Image(torch.rand(1, 8, 8, 3))},
        "models.to_image": {"latents": Latents(torch.randn(1, 3, 8, 8), space="pixels", downscale=1)},
        "models.load_weights": {"source": network},
    }  # fmt: skip


def test_nodes_of_weights_that_say_what_they_are_keep_every_node_s_promises(tiny, context, tmp_path, source_of):
    calls = _of_weights(tiny)
    path = tmp_path / "net.safetensors"
    path.write_bytes(write_weights(calls["models.load_weights"]["source"])[0])
    calls["models.load_weights"] = {"source": source_of(path)}
    for name in ("models.read_lora", "models.apply_lora", "models.read_words"):
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(write_weights(calls[name]["source"])[0])
        calls[name] = {**calls[name], "source": source_of(file)}
    for name, inputs in calls.items():
        check_node(_nodes()[name], ctx=context, **inputs)
