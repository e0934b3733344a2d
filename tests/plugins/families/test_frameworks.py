"""The graphs of the families, small: each trains, samples and reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore
from mezzotint_families.building import pack_family
from mezzotint_families.gan import Generator
from mezzotint_families.realnvp import RealNVP
from mezzotint_families.vae import VAE
from mezzotint_families.vqvae import VQVAE
from mezzotint_image.tensors import write_weights
from mezzotint_models import pack_network
from mezzotint_models.architecture import unet

GRAPHS = Path(__file__).resolve().parents[3] / "graphs" / "frameworks"
FAMILIES = ("vae", "realnvp", "vqvae", "gan", "wgan")


@pytest.fixture(scope="module")
def runtime():
    return Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_graph_trains_samples_and_reports(family, runtime):
    made = load(GRAPHS / f"{family}.json", runtime=runtime).run(pictures=20, steps=2, size=8, count=8).outputs
    assert made["report"].data["steps"] == 2
    sheet = made["sheet"].data
    assert sheet.shape[-1] == 3
    assert torch.isfinite(sheet).all()
    assert made["weights"].meta["config"]["size"] == 8


def test_ddpm_trains_samples_and_reports_with_and_without_learned_variance(runtime):
    graph = load(GRAPHS / "ddpm.json", runtime=runtime)
    small = {"pictures": 20, "steps": 2, "size": 8, "count": 4, "sampling_steps": 2}
    for learned, schedule, sampler in ((True, "cosine", "ddpm"), (False, "linear", "ddim")):
        made = graph.run(**small, learned_variance=learned, schedule=schedule, sampler=sampler).outputs
        assert made["report"].data["steps"] == 2
        assert torch.isfinite(made["sheet"].data).all()
        kept = made["weights"].tensors
        last = next(value for name, value in kept.items() if name.endswith("conv_out.bias"))
        assert len(last) == (24 if learned else 12)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Files of small untrained networks, by family."""
    torch.manual_seed(0)
    architecture = unet(size=8, channels=[8, 8], head_channels=8)
    made = {
        "gan": pack_family(Generator(size=8, channels=4, noise=4)),
        "vae": pack_family(VAE(size=8, channels=4, codes=4)),
        "realnvp": pack_family(RealNVP(size=8, hidden=4)),
        "vqvae": pack_family(VQVAE(size=8, channels=4, codes=4, width=2, prior_channels=4, prior_layers=1)),
        "ddpm": pack_network(architecture.build(), denoiser=architecture.record()),
    }
    folder = tmp_path_factory.mktemp("weights")
    for name, weights in made.items():
        (folder / f"{name}.safetensors").write_bytes(b"".join(write_weights(weights)))
    return {name: str(folder / f"{name}.safetensors") for name in made}


@pytest.mark.parametrize(
    ("family", "file"),
    [
        ("gan", "gan"),
        ("wgan", "gan"),
        ("vae", "vae"),
        ("vqvae", "vqvae"),
        ("realnvp", "realnvp"),
        ("ddpm", "ddpm"),
        ("own", "vqvae"),
    ],
)
def test_bundled_samples_the_family_that_is_asked_for_and_loads_no_other(family, file, runtime, untrained):
    graph = load(GRAPHS / "bundled.json", runtime=runtime)
    given = {"family": family, family: untrained[file], "size": 8, "steps": 2, "count": 2}
    plan = graph.plan(**given)
    assert len([step for step in plan.steps.values() if step.use.startswith("models.load_weights")]) == 1
    assert torch.isfinite(graph.run(**given).outputs["sheet"].data).all()


def test_compare_has_a_row_for_each_family_with_its_costs(runtime, untrained):
    files = {"gan": "gan", "vae": "vae", "flow": "realnvp", "diffusion": "ddpm"}
    graph = load(GRAPHS / "compare.json", runtime=runtime)
    made = graph.run(**{k: untrained[v] for k, v in files.items()}, size=8, count=8, steps=3, shown=2).outputs
    rows = {row["label"]: row for row in made["table"].data["rows"]}
    assert {label: row["passes"] for label, row in rows.items()} == {"GAN": 1, "VAE": 1, "flow": 1, "diffusion": 3}
    distances = [row["kid"] for row in made["table"].data["rows"]]
    assert distances == sorted(distances)
    assert all(row["seconds"] > 0 for row in made["times"].data["rows"])
    assert made["sheet"].data.shape[1] > 4 * 64


def test_a_familys_row_puts_real_pictures_nearer_than_an_untrained_generators(runtime, untrained, tmp_path):
    (tmp_path / "member.json").write_bytes((GRAPHS / "member.json").read_bytes())
    world = {"use": "smallworld.pictures@1", "inputs": {"count": 24, "things": 1}}
    given = {"real": {"ref": "real.image"}, "weights": {"ref": "weights"}, "label": "", "shown": 2}
    nodes = {
        "real": {**world, "inputs": {**world["inputs"], "seed": 900}},
        "others": {**world, "inputs": {**world["inputs"], "seed": 100}},
        "weights": {"use": "models.load_weights@1", "inputs": {"source": {"ref": "inputs.gan"}}},
        "made": {"use": "families.sample@1", "inputs": {"weights": {"ref": "weights"}, "count": 24}},
        "near": {"use": "graph:member.json", "inputs": {**given, "image": {"ref": "others.image"}}},
        "far": {"use": "graph:member.json", "inputs": {**given, "image": {"ref": "made"}}},
    }
    doc = {
        "format": 1, "name": "outer", "inputs": {"gan": {"type": "string"}}, "nodes": nodes,
        "outputs": {"near": {"ref": "near.row"}, "far": {"ref": "far.row"}},
    }  # fmt: skip
    (tmp_path / "outer.json").write_text(json.dumps(doc))
    made = load(tmp_path / "outer.json", runtime=runtime).run(gan=untrained["gan"]).outputs
    near, far = made["near"].data, made["far"].data
    assert near["kid"] < far["kid"] / 10
    assert near["fid"] < far["fid"] / 2
    assert near["recall"] > far["recall"] == 0


@pytest.mark.parametrize("family", [*FAMILIES, "ddpm", "bundled", "compare", "denoised", "member"])
def test_a_familys_graph_describes_each_input(family):
    doc = json.loads((GRAPHS / f"{family}.json").read_text("utf-8"))
    assert doc["name"] == family
    assert [key for key, value in doc["inputs"].items() if not value.get("description")] == []
    if family in (*FAMILIES, "ddpm", "bundled", "compare"):  # the others are parts of these
        assert [key for key, value in doc["inputs"].items() if "default" not in value] == []
