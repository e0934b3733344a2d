"""docs/editing.md: each of its commands runs, with few steps, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "editing.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (mezzotint run .*)$", TEXT, re.MULTILINE)
FEW = {
    "steps": 2, "updates": 1, "iterations": 1, "fit_steps": 1, "tune_steps": 1, "batch": 1, "eta": "[0, 1]",
    "views": 1, "tuning": 1, "sampling_steps": 1,
}  # fmt: skip


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_a_command_runs(number, run_command):
    assert list(run_command("editing.md", number, FEW).glob("outputs/*.png"))


def test_the_graphs_pictures_and_headings_that_it_names_are_there(named_and_missing):
    assert named_and_missing("editing.md") == []
    headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", TEXT, re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= headings
