"""The graphs that evaluate, with few pictures and steps: what their figures tell apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mezzotint.api import load
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore

GRAPHS = Path(__file__).resolve().parents[2] / "graphs" / "evaluation"


@pytest.fixture(scope="module")
def runtime():
    return Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))


@pytest.mark.parametrize("name", ["samples", "features", "prompt_accuracy", "fid"])
def test_an_evaluation_is_valid_and_describes_each_input(name, runtime):
    load(GRAPHS / f"{name}.json", runtime=runtime)
    doc = json.loads((GRAPHS / f"{name}.json").read_text("utf-8"))
    assert doc["name"] == name and doc["description"]
    assert [key for key, value in doc["inputs"].items() if not value.get("description")] == []


def test_prompt_accuracy_judges_each_picture_by_its_own_caption(runtime):
    got = load(GRAPHS / "prompt_accuracy.json", runtime=runtime).run(count=4, steps=6).outputs
    report, interval = got["report"].data, got["interval"].data
    assert len(report["rows"]) == interval["samples"] == report["score"]["pictures"] == 4
    assert interval["low"] <= interval["mean"] <= interval["high"]
    assert 100 * interval["mean"] == pytest.approx(report["accuracy"])
    assert report["score"]["background"] >= 75, "six steps are enough for the ground"
    assert got["ceiling"].data["accuracy"] >= 75
    assert [row["prompt"] for row in got["ceiling"].data["rows"]] == [row["prompt"] for row in report["rows"]]
    assert got["sheet"].data.shape[0] == 1


def test_pictures_are_further_from_real_ones_than_those_are_from_each_other(runtime):
    # One step makes a blur, which is what every one of these figures must see.
    got = load(GRAPHS / "fid.json", runtime=runtime).run(count=24, steps=1).outputs
    fid, floor = got["fid"].data, got["fid_floor"].data
    assert fid["fid"] > 1.5 * floor["fid"] > 0
    assert fid["full_rank"] is False and fid["real"] == fid["generated"] == 24
    assert got["kid"].data["kid"] > 3 * abs(got["kid_floor"].data["kid"])
    assert got["precision_recall"].data["precision"] < 1
    assert tuple(got["real_statistics"].covariance.shape) == (128, 128)


def test_the_features_see_what_is_in_pictures(runtime):
    """Pairs are further from single objects than single objects from others, grounds and colours being alike."""
    nodes, outputs = {}, {}
    for name, things, seed in (("one", 1, 0), ("other", 1, 1000), ("pairs", 2, 0)):
        world = {"count": 40, "things": things, "seed": seed}
        nodes[f"{name}_world"] = {"use": "smallworld.pictures@1", "inputs": world}
        image = {"image": {"ref": f"{name}_world.image"}}
        nodes[name] = {"use": "graph:bundled:graphs/evaluation/features.json", "inputs": image}
    for name in ("other", "pairs"):
        sets = {"real": {"ref": "one.features"}, "generated": {"ref": f"{name}.features"}}
        nodes[f"kid_{name}"] = {"use": "metrics.kid@1", "inputs": sets}
        outputs[name] = {"ref": f"kid_{name}"}
    got = load({"format": 1, "nodes": nodes, "outputs": outputs}, runtime=runtime).run().outputs
    assert got["pairs"].data["kid"] > 3 * abs(got["other"].data["kid"])
