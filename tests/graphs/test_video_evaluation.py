"""The graphs that evaluate video, with few clips and steps: what their figures tell apart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mezzotint.api import load

GRAPHS = Path(__file__).resolve().parents[2] / "graphs" / "evaluation"


def test_standing_pictures_are_further_from_real_clips_than_those_are_from_each_other(runtime):
    got = load(GRAPHS / "fvd.json", runtime=runtime).run(count=12, reference_count=48, steps=1).outputs
    floor, still = got["fvd_floor"].data, got["fvd_still"].data
    assert still["fvd"] > 1.05 * floor["fvd"] > 0 and still["full_rank"] is False
    assert (still["real"], still["generated"]) == (48, 12)
    assert got["real_statistics"].count == 48


def leaderboard() -> dict:
    """The leaderboard's document with the world and the still picture alone: the systems are tested elsewhere."""
    doc = json.loads((GRAPHS / "video_leaderboard.json").read_text("utf-8"))
    over = doc["nodes"]["each"]["inputs"]["over"]
    kept = [
        number
        for number, video in enumerate(over["video"])
        if video["ref"].partition(".")[0] in ("world", "still")
    ]
    made = {video["ref"].partition(".")[0] for video in over["video"]} - {"world", "still"}
    doc["nodes"] = {name: node for name, node in doc["nodes"].items() if name not in made}
    doc["nodes"]["each"]["inputs"]["over"] = {name: [values[i] for i in kept] for name, values in over.items()}
    for node in doc["nodes"].values():
        node["use"] = node["use"].replace("graph:video", "graph:bundled:graphs/evaluation/video")
        node["use"] = node["use"].replace("graph:still", "graph:bundled:graphs/evaluation/still")
        if str(node["inputs"].get("graph", "")).startswith("graph:video"):
            node["inputs"]["graph"] = node["inputs"]["graph"].replace("graph:", "graph:bundled:graphs/evaluation/")
    return doc


def test_the_video_leaderboard_has_a_row_for_each_system_and_the_world_obeys_all(runtime):
    # graphs/evaluation/video_leaderboard.json without its slow systems.
    got = load(leaderboard(), runtime=runtime).run(count=3, steps=1, shown=24, reference_count=16).outputs
    rows = {row["label"]: row for row in got["table"].data["rows"]}
    assert set(rows) == {"the world itself", "a still picture"} and len(got["reports"]) == 2
    world, still = rows["the world itself"], rows["a still picture"]
    assert world["accuracy"] == world["motion"] == world["object"] == 100 and world["rank"] == 1
    assert still["motion"] < 100, "what stands still does not do what it was asked"
    assert still["consistency"] == pytest.approx(100) and still["psnr"] is None and still["difference"] == 0
    assert world["consistency"] < 100 and world["difference"] > 0


def read_by(doc: dict, name: str) -> set[str]:
    """All that a node of the document reads, also by way of other nodes."""
    refs = set(re.findall(r'"ref": "([^"]+)"', json.dumps(doc["nodes"].get(name, {}).get("inputs", {}))))
    return refs.union(*(read_by(doc, ref.partition(".")[0]) for ref in refs))


def test_the_leaderboard_has_as_many_systems_as_labels_and_each_is_asked_for_the_same_captions():
    doc = json.loads((GRAPHS / "video_leaderboard.json").read_text("utf-8"))
    over = doc["nodes"]["each"]["inputs"]["over"]
    assert len(over["label"]) == len(set(over["label"])) == len(over["video"])
    for video in over["video"]:
        name = video["ref"].partition(".")[0]
        assert name == "world" or "world.captions" in read_by(doc, name), name
