"""graphs/editing/prompt_to_prompt.json: each kind of edit, with few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore

ROOT = Path(__file__).resolve().parents[2]
GRAPH = ROOT / "graphs" / "editing" / "prompt_to_prompt.json"
FEW: dict[str, Any] = {"steps": 2, "width": 32, "height": 32, "sampler": "ddim"}
PROMPT = "a large red circle left of a small green star on a white background"


@pytest.fixture(scope="module")
def runtime():
    torch.set_num_threads(1)
    return Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))


@pytest.fixture
def run(runtime):
    return lambda **inputs: load(GRAPH, runtime=runtime).run(**{**FEW, **inputs}).outputs


@pytest.mark.parametrize(
    "inputs",
    [
        {"kind": "refine", "edited": f"{PROMPT} at night", "blend": ["star"]},
        {"kind": "reweight", "edited": PROMPT, "prompt": PROMPT, "weights": {"red": 3.0}, "blend": []},
    ],
)
def test_each_kind_of_edit_changes_the_picture_and_not_the_one_before(run, inputs):
    found, plain = run(**inputs), run(edited=PROMPT, prompt=PROMPT)
    assert not torch.equal(found["image"].data, found["before"].data)
    assert torch.equal(found["before"].data, plain["before"].data)


def test_the_same_prompt_twice_gives_the_same_picture_twice(run):
    found = run(edited=PROMPT, prompt=PROMPT)
    assert torch.equal(found["image"].data, found["before"].data)
