"""Null-text inversion and Imagic on a tiny random checkpoint in Stable Diffusion's layout, as on any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore

EDITING = Path(__file__).resolve().parents[3] / "graphs" / "editing"


@pytest.fixture
def run(tiny):
    def run(graph: str, **inputs):
        runtime = Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))
        given = {"model": str(tiny.folder), "width": 16, "height": 16, "steps": 2, **inputs}
        return load(EDITING / f"{graph}.json", runtime=runtime).run(**given).outputs

    return run


def test_null_text_runs_on_any_checkpoint(run):
    found = run("null_text", prompt="a red circle", target="a blue circle", updates=2, iterations=2)
    assert found["report"].data["rebuilt"] <= found["report"].data["plain"]
    assert found["edited"].data.shape == (1, 16, 16, 3)


def test_imagic_runs_on_any_checkpoint(run):
    found = run("imagic", target="a blue circle", fit_steps=2, tune_steps=2, batch=1, eta=[0.5])
    assert [image.data.shape for image in found["images"]] == [(1, 16, 16, 3)]
    assert found["tuning"].data["validation"][-1]["loss"] < found["fitting"].data["validation"][-1]["start"]
