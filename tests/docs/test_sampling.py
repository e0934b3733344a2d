"""docs/sampling.md names every sampler with its options and its evaluations, and its commands are valid."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from mezzotint import NoiseSchedule
from mezzotint_sampling.run import levels_of
from mezzotint_sampling.samplers import SAMPLERS, evaluation_count
from mezzotint_sampling.sigmas import make_sigmas

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "sampling.md").read_text(encoding="utf-8")
ROWS = {
    m[1]: [cell.strip() for cell in m[0].strip("|").split("|")]
    for m in re.finditer(r"^\| `(\w+)` .*$", TEXT, re.M)
}


def test_the_table_has_every_sampler_and_no_other():
    assert ROWS.keys() == SAMPLERS.keys()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_has_each_sampler_s_options(name):
    parameters = inspect.signature(SAMPLERS[name]).parameters.values()
    options = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert set(re.findall(r"`(\w+)`", ROWS[name][3])) == options


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_has_each_sampler_s_evaluations(name):
    n = 12
    count = evaluation_count(SAMPLERS[name], levels_of(make_sigmas(NoiseSchedule(), n, "karras")))
    said = ROWS[name][2]
    wanted = {"n": count == n, "2n − 1": count == 2 * n - 1, "up to 2n − 1": n < count <= 2 * n - 1}  # noqa: RUF001
    assert wanted.get(said, count > 2 * n - 1), (said, count)


def test_the_pages_that_it_links_are_there():
    for target in re.findall(r"\]\(([\w/.-]+)", TEXT):
        assert (ROOT / "docs" / target).exists(), target


def test_its_commands_name_graphs_and_inputs_that_are_there(blocks):
    commands = [c for b in blocks("sampling.md") if b.language == "console" for c in b.commands()]
    assert commands
    for _, verb, path, *flags in commands:
        assert verb == "run"
        given = {flag.removeprefix("--") for flag in flags if flag.startswith("--")}
        assert given <= json.loads((ROOT / path).read_text("utf-8"))["inputs"].keys()
