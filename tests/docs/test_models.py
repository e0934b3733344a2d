"""docs/models.md: its examples run, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from mezzotint.testing import check_node, fake_context
from mezzotint_models import pack_network, register_nodes, start_network

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_example_of_packing_runs(blocks):
    (text,) = (b.text for b in blocks("models.md") if b.mark == "test")
    exec(text, {})


def test_the_example_of_an_encoder_of_ones_own_reads_weights(blocks):
    (text,) = (b.text for b in blocks("models.md") if b.file == "my_encoder.py")
    names: dict = {"__name__": "my_encoder"}
    exec(text, names)
    config = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    network = start_network("CLIPTextModel", {**config, "intermediate_size": 8, "max_position_embeddings": 4})
    weights = pack_network(network, image_encoder={"size": 64})
    recipe = names["encoder"](weights)
    module, size = names["load_encoder"](recipe, fake_context())
    assert size == 64 and torch.equal(next(module.parameters()), next(network.parameters()))


def test_every_node_that_the_page_names_is_there():
    found: list = []
    register_nodes(found.append)
    known = {fn.__mezzotint_node__.id for fn in found}
    assert set(re.findall(r"`(models\.\w+)`", PAGE)) <= known


def test_every_setting_that_the_page_names_is_one_of_models_unet():
    from mezzotint_models.architecture import unet

    table = PAGE.partition("| system | settings |")[2].partition("\n\n")[0]
    settings = {
        name
        for cell in re.findall(r"^\| [^|]+ \| ([^|]+) \|", table, re.M)
        for name in re.findall(r"`(\w+)", cell)
    }
    architecture = check_node(unet, size=16, channels=[8, 16], head_channels=8)["architecture"]
    known = {*architecture.config, "learned_variance", "autoencoder", "concat", "joint", "cross"}
    assert settings <= known and {"attention", "low_res", "level"} <= settings
