"""The graphs of subjects, and the dialogue, on a tiny random checkpoint in Stable Diffusion's layout."""

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
from mezzotint_models import parts_of

GRAPHS = Path(__file__).resolve().parents[3] / "graphs"
FEW = {"size": 16, "steps": 1, "batch": 1, "sampling_steps": 1}
# The tiny tokenizer reads 14 tokens, and spells what it does not know.
PRIOR = {"class_prompts": ["a red circle", "a blue square"], "class_pictures": 2}
TOY = {"trained_on": ["a red a"] * 4, "prompts": ["a red a"] * 4}
WORD = {"trained_on": ["a <thing>"] * 4, "prompts": ["a blue <thing>"] * 4, "begin": "circle"}
GIVEN: dict[str, dict[str, Any]] = {
    "dreambooth": {**FEW, **PRIOR, **TOY},
    "lora": {**FEW, **PRIOR, **TOY},
    "textual_inversion": {**FEW, **WORD},
    "custom_diffusion": {**FEW, **PRIOR, **WORD},
    "custom_diffusion_two": {
        **FEW, **PRIOR, "trained_on": ["a {}"] * 4, "prompts": ["a <crescent>", "a <hexagon>"], "pictures": 2,
        "begin": "circle", "captions": ["a red circle on the left"], "answered": ["a {}"],
        "also_answered": ["a {} on the left"],
    },
}  # fmt: skip
TUNED = {
    "dreambooth": ("weights", "tuned", ""),
    "custom_diffusion": ("weights", "tuned", "attn2.to_"),
    "custom_diffusion_two": ("joint_weights", "tuned", "attn2.to_"),
}


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))


@pytest.mark.parametrize("name", GIVEN)
def test_a_subject_is_learnt_on_any_checkpoint(name: str, runtime: Runtime, tiny: SimpleNamespace) -> None:
    graph = load(GRAPHS / "customization" / f"{name}.json", runtime=runtime)
    outputs = graph.run(model=str(tiny.folder), **GIVEN[name]).outputs
    for output in {"image", "merged", "joint"} & outputs.keys():
        assert torch.isfinite(outputs[output].data).all() and outputs[output].data.shape[1:] == (16, 16, 3)
    if name in TUNED:
        output, part, layers = TUNED[name]
        wanted = {
            n for n, _ in tiny.unet.named_parameters() if not layers or f"{layers}k" in n or f"{layers}v" in n
        }
        assert set(parts_of(outputs[output])[part].tensors) == wanted


def test_a_dialogue_runs_on_any_checkpoint(runtime: Runtime, tiny: SimpleNamespace) -> None:
    graph = load(GRAPHS / "outlook" / "interactive_editing.json", runtime=runtime)
    small = {"steps": 2, "width": 16, "height": 16, "model": str(tiny.folder), "source": "a red circle"}
    outputs = graph.run(method="edit", prompt="a blue circle", blend=["circle"], **small).outputs
    assert outputs["image"].data.shape == (1, 16, 16, 3) and torch.isfinite(outputs["image"].data).all()
