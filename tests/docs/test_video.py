"""docs/video.md: each of its commands runs, with few steps, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "video.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (mezzotint run .*)$", TEXT, re.MULTILINE)
FEW = {"steps": 1, "frames": 2, "batch": 1}


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_a_command_runs(number, run_command):
    assert list(run_command("video.md", number, FEW).glob("outputs/*.mp4"))


def test_the_graphs_and_pages_that_it_names_are_there(named_and_missing):
    assert named_and_missing("video.md") == []
