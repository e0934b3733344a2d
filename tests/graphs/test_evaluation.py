"""The graphs that evaluate, with few pictures and steps: what their figures tell apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mezzotint.api import load

GRAPHS = Path(__file__).resolve().parents[2] / "graphs" / "evaluation"


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


def test_clip_scores_a_models_pictures_above_pictures_of_other_captions(runtime):
    got = load(GRAPHS / "clip_score.json", runtime=runtime).run(count=6, steps=6).outputs
    assert got["report"].data["clip_score"] > got["floor"].data["clip_score"] + 10
    assert got["above_floor"].data["significant"] is True
    assert got["ceiling"].data["clip_score"] > got["floor"].data["clip_score"] + 10
    assert got["interval"].data["low"] <= got["report"].data["clip_score"] <= got["interval"].data["high"]


def test_the_leaderboard_has_a_row_for_each_system_and_the_best_obeys_most(runtime):
    got = (
        load(GRAPHS / "leaderboard.json", runtime=runtime)
        .run(count=4, steps=2, shown=3, reference_count=8)
        .outputs
    )
    rows = got["table"].data["rows"]
    doc = json.loads((GRAPHS / "leaderboard.json").read_text("utf-8"))
    over = doc["nodes"]["each"]["inputs"]["over"]
    assert {row["label"] for row in rows} == set(over["label"]) and len(rows) == len(over["image"])
    assert [row["accuracy"] for row in rows] == sorted((row["accuracy"] for row in rows), reverse=True)
    by_label = {row["label"]: row for row in rows}
    world, baseline = by_label["the world itself"], by_label["latent diffusion"]
    assert world["accuracy"] == 100 and world["share_low"] == world["share_high"] == 1
    assert baseline["versus"] == baseline["versus_low"] == baseline["versus_high"] == 0
    assert world["versus"] == pytest.approx((100 - baseline["accuracy"]) / 100)
    assert world["fid"] < baseline["fid"], "two steps make a blur"
    ranked = by_label["latent diffusion, ranked by CLIP"]
    scores = [report.data["clip_score"] for report in got["candidates"]]
    assert len(scores) == 4 and ranked["clip_score"] >= max(scores), "the best of each caption"
    assert [report.data["rows"][0]["prompt"] for report in got["reports"]] == [
        got["reports"][0].data["rows"][0]["prompt"]
    ] * len(rows)
