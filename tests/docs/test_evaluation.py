"""docs/evaluation.md is true: its commands run, its nodes are those that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mezzotint.cli import main
from mezzotint.plugins import load_registry

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_every_node_that_measures_is_named_and_no_other():
    there = {spec.id.partition("@")[0] for spec in load_registry(installed=False).specs()}
    assert set(re.findall(r"`(metrics\.\w+)`", TEXT)) == {name for name in there if name.startswith("metrics.")}


@pytest.mark.parametrize("graph", ["prompt_accuracy", "fid"])
def test_its_command_runs_and_writes_what_it_says(graph, tmp_path, monkeypatch, blocks):
    (command,) = [c for b in blocks("evaluation.md") for c in b.commands() if c[2].endswith(f"/{graph}.json")]
    (tmp_path / "graphs").symlink_to(ROOT / "graphs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    count = command.index("--count") + 1
    command[count] = "5"  # the page's own takes a minute
    with pytest.raises(SystemExit) as end:
        main([*command[1:], "--steps", "2"])
    assert not end.value.code
    wanted = json.loads((ROOT / command[2]).read_text("utf-8"))["outputs"]
    for name in wanted:
        assert f"`{name}`" in TEXT, name
        assert list(tmp_path.glob(f"outputs/{graph}-{name}-*")), name


def test_every_evaluation_is_named_and_so_is_each_output_of_the_leaderboards():
    folder = ROOT / "graphs" / "evaluation"
    docs = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    by_hand = [name for name, doc in docs.items() if all("default" in value for value in doc["inputs"].values())]
    assert [name for name in by_hand if f"{name}.json" not in TEXT and name != "samples"] == []
    for leaderboard in ("leaderboard", "video_leaderboard"):
        assert [name for name in docs[leaderboard]["outputs"] if f"`{name}`" not in TEXT] == []


@pytest.mark.parametrize(
    ("place", "name", "made"),
    [
        (0, "pt_inception-2015-12-05-6726825d.pth", "inception.safetensors"),
        (1, "rgb_imagenet.pt", "i3d.safetensors"),
    ],
)
def test_the_line_that_converts_standard_weights_makes_a_file_of_the_same_tensors(
    place, name, made, tmp_path, monkeypatch, blocks
):
    block = [b for b in blocks("evaluation.md") if b.language == "python"][place]
    weights = {"fc.weight": torch.randn(4, 3).T, "fc.bias": torch.randn(3)}
    torch.save(weights, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(block.text, {})
    got = load_file(made)
    assert got.keys() == weights.keys() and all(torch.equal(got[key], weights[key]) for key in got)
