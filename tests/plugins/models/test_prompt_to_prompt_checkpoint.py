"""graphs/editing/prompt_to_prompt.json on a checkpoint in Stable Diffusion 1.x's layout that nobody here made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore

GRAPH = Path(__file__).resolve().parents[3] / "graphs" / "editing" / "prompt_to_prompt.json"


@pytest.mark.parametrize("edited", ["a blue circle on the left", "a red circle on the left"])
def test_any_checkpoint_of_that_layout_is_edited(tiny: SimpleNamespace, edited: str) -> None:
    runtime = Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))
    prompt = "a red circle on the left"
    small = {"steps": 3, "width": 16, "height": 16, "guidance": 4.0, "threshold": 0.3, "blend": ["circle"]}
    loaded = load(GRAPH, runtime=runtime, allow=[str(tiny.folder)])
    found = loaded.run(prompt=prompt, edited=edited, model=str(tiny.folder), **small).outputs
    before, after = found["before"].data, found["image"].data
    assert after.shape == (1, 16, 16, 3)
    assert torch.equal(after, before) == (edited == prompt)
