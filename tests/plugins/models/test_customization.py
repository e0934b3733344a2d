"""Each way to teach a subject, as shipped: it comes, new grounds are obeyed, things that have names stay."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from mezzotint_smallworld import parse

FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "customization.py"


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("customization", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["customization"] = module
    spec.loader.exec_module(module)
    return module


customization = _loaded()


@pytest.fixture(scope="module")
def bench() -> Any:
    return customization.Bench()


@pytest.fixture(scope="module")
def before(bench: Any) -> Any:
    return bench.figures(bench.denoiser, bench.encoder, "a shape", 0)


def test_what_is_asked_of_the_models_is_of_this_world_and_on_grounds_that_no_training_picture_has():
    for prompt in customization.KNOWN:
        assert len(parse(prompt).things) == 1
    trained = {"white", "orange", "purple", "black"}
    assert not trained & {*customization.GROUNDS}
    for _, given, called in customization.WAYS.values():
        assert called.startswith("a ") and set(given) <= {"prior_weight"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", ["DreamBooth", "LoRA", "textual inversion", "Custom Diffusion"])
def test_a_subject_comes_the_ground_obeys_and_other_things_stay(way: str, bench: Any, before: Any) -> None:
    taught = bench.teach(way, "teal_crescent", 0)
    found = bench.figures(taught.denoiser, taught.encoder, customization.WAYS[way][2], 0)
    assert found.shown >= before.shown + 1
    assert found.obeyed >= before.obeyed - 2
    assert found.known >= before.known - 3
    changed = {part: {*weights.tensors} for part, weights in taught.weights.items()}
    assert set(changed) == {
        "DreamBooth": {"tuned"}, "LoRA": {"lora"}, "textual inversion": {"words"},
        "Custom Diffusion": {"tuned", "words"},
    }[way]  # fmt: skip
    if way == "Custom Diffusion":
        assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in changed["tuned"])
    if way == "textual inversion":
        assert taught.denoiser is bench.denoiser


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_with_the_prior_ordinary_pictures_that_no_training_saw_are_forgotten_less(bench: Any) -> None:
    ways = ("DreamBooth", "without the prior")
    kept, free = (bench.error(bench.teach(way, "teal_crescent", 0).denoiser) for way in ways)
    assert kept < 0.9 * free


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_merged_subjects_come_without_training_and_ordinary_things_stay(bench: Any) -> None:
    found = {kind: customization.singles_and_pairs(bench, *pair, 0) for kind, pair in bench.two(0).items()}
    assert found["merged"][0] >= 3 and found["merged"][2] >= 5
    assert found["joint"][0] >= 3
