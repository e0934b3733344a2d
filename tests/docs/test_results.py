"""docs/results.md is what its command makes of what was measured, and keeps the survey's figures apart."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACTS = json.loads((ROOT / "docs" / "results.json").read_text("utf-8"))
VIDEO = json.loads((ROOT / "docs" / "video_results.json").read_text("utf-8"))
TEXT = (ROOT / "docs" / "results.md").read_text("utf-8")


@pytest.fixture(scope="module")
def results():
    spec = importlib.util.spec_from_file_location("results", ROOT / "docs" / "results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_command_makes_of_what_was_measured(results):
    assert results.page(FACTS, VIDEO) == TEXT, (
        "docs/results.py or the figures beside it have changed: python docs/results.py --page"
    )


def test_every_system_of_the_leaderboard_was_measured():
    graph = json.loads((ROOT / "graphs" / "evaluation" / "leaderboard.json").read_text("utf-8"))
    labels = graph["nodes"]["each"]["inputs"]["over"]["label"]
    for table in FACTS:
        assert sorted(row["label"] for row in table["rows"]) == sorted(labels)
        assert all(row["samples"] == table["count"] for row in table["rows"])


def test_every_system_of_the_video_leaderboard_was_measured():
    graph = json.loads((ROOT / "graphs" / "evaluation" / "video_leaderboard.json").read_text("utf-8"))
    labels = graph["nodes"]["each"]["inputs"]["over"]["label"]
    assert sorted(row["label"] for row in VIDEO["rows"]) == sorted(labels)
    assert all(row["samples"] == VIDEO["count"] for row in VIDEO["rows"])
    by_label = {row["label"]: row for row in VIDEO["rows"]}
    assert by_label["the world itself"]["accuracy"] > 95 > by_label["a still picture"]["motion"]


def test_the_surveys_table_of_video_is_said_to_be_missing_and_no_figure_stands_in_its_place():
    ours, survey = TEXT.split("## The survey's table 2")
    assert "**missing**" in survey and "would not compare" in survey
    assert "|" not in survey and "| system | obeyed | motion |" in ours


def test_the_surveys_figures_stand_by_themselves_and_are_said_not_to_compare():
    ours, survey = TEXT.split("## The survey's table 1")
    for name, figure in (
        ("LAFITE", 26.94),
        ("DALL-E", 17.89),
        ("LDM", 12.63),
        ("GLIDE", 12.24),
        ("DALL-E 2", 10.39),
    ):
        assert f"| {name} | {figure} |" in survey and f"{figure}" not in ours
    assert "| Imagen | 7.27 |" in survey
    assert "The two do not compare" in survey
