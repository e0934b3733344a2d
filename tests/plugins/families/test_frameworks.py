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


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_graph_describes_each_input(family):
    doc = json.loads((GRAPHS / f"{family}.json").read_text("utf-8"))
    assert doc["name"] == family
    assert [key for key, value in doc["inputs"].items() if not value.get("description")] == []
    assert [key for key, value in doc["inputs"].items() if "default" not in value] == []
