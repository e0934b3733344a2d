"""The graphs of injectors on a checkpoint in Stable Diffusion's layout with random weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore

GRAPHS = Path(__file__).resolve().parents[3] / "graphs" / "editing"
PAIR = {"prompt": ["a red circle", "a blue square"], "batch": 2}
GIVEN: dict[str, dict[str, Any]] = {
    "attention_maps": {"prompt": "a red circle", "words": ["red circle", "a"], "batch": 1, "steps": 4},
    "regional_prompts": {"prompt": "a red circle", "first": "a blue square", "second": "a red square", "batch": 1},
    "consistent_style": PAIR,
    "image_prompt": {**PAIR, "reference_prompt": "a blue circle"},
    "layout_guidance": {
        "prompt": "a red circle", "batch": 1, "steps": 3, "boxes": [{"words": "circle", "box": [0.5, 0, 1, 1]}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))


@pytest.mark.parametrize("name", GIVEN)
def test_a_graph_of_an_injector_runs_on_any_checkpoint(name: str, runtime: Runtime, tiny: SimpleNamespace) -> None:
    given = {"steps": 2, "model": str(tiny.folder), **GIVEN[name]}
    outputs = load(GRAPHS / f"{name}.json", runtime=runtime).run(**given).outputs
    assert torch.isfinite(outputs["image"].data).all()
