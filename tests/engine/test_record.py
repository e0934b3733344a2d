"""Run records: written whole, found again, compared; damaged ones are nobody's problem."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mezzotint.api import LoadedGraph, load
from mezzotint.errors import UserError
from mezzotint.nodes import node
from mezzotint.record import diff_runs, list_runs, read_run
from mezzotint.runner import run_graph


@node("t.num")
def num(*, value: int = 0) -> int:
    return value


@node("t.fail")
def fail(*, value: int = 0) -> int:
    raise ValueError("no such luck")


@node("t.read")
def read(*, path: Path) -> str:
    return path.read_text()


@pytest.fixture
def loaded(kit: SimpleNamespace) -> LoadedGraph:
    found: LoadedGraph = kit.graph_of(
        {
            "a": ("t.num@1", {"value": {"ref": "inputs.x"}}),
            "f": ("t.read@1", {"path": {"ref": "inputs.file"}}),
            "bad": ("t.fail@1", {}),
            "after": ("t.num@1", {"value": {"ref": "bad"}}),
        },
        {"a": "a", "f": "f", "b": "after"},
        num,
        fail,
        read,
        inputs={"x": {"type": "integer", "default": 1}, "file": {"type": "string", "format": "path"}},
    )
    return found


def go(loaded: LoadedGraph, tmp_path: Path, log: Any = None, **inputs: Any) -> Any:
    (tmp_path / "in.txt").write_text("text")
    given = {"file": str(tmp_path / "in.txt"), **inputs}
    out, runs = tmp_path / "out", tmp_path / "out" / "runs"
    return run_graph(loaded.graph, given, loaded.runtime, out=out, runs=runs, on_event=log)


def test_a_record_says_what_ran_with_what_and_what_came_out(loaded: LoadedGraph, tmp_path: Path) -> None:
    result = go(loaded, tmp_path, x=5)
    record = read_run(tmp_path / "out" / "runs", result.run)
    assert record["status"] == "failed"
    assert record["inputs"] == {"x": 5, "file": str(tmp_path / "in.txt")}
    by_node = {step["node"]: step for step in record["steps"]}
    assert by_node["a"]["seconds"] >= 0
    assert by_node["bad"]["failed"]
    assert by_node["after"]["skipped"]
    assert record["failures"] == {"bad": "node 'bad' (t.fail@1) failed: ValueError: no such luck"}
    assert {o["output"]: o["sha256"] for o in record["outputs"]} == {f.output: f.sha256 for f in result.files}
    assert list(record["sources"]) == [str(tmp_path / "in.txt")]
    assert record["versions"]["mezzotint"]
    assert record["made_of"]["inputs"]["x"] == 5
    again = read_run(tmp_path / "out" / "runs", go(loaded, tmp_path, x=5).run)
    assert {s["node"] for s in again["steps"] if s.get("cached")} == {"a", "f"}


def test_the_graph_in_a_record_can_be_run(loaded: LoadedGraph, tmp_path: Path) -> None:
    record = read_run(tmp_path / "out" / "runs", go(loaded, tmp_path).run)
    assert load(record["made_of"]["graph"], runtime=loaded.runtime).plan(file=str(tmp_path / "in.txt")).steps


def test_records_are_listed_oldest_first_and_damaged_ones_left_out(loaded: LoadedGraph, tmp_path: Path) -> None:
    ids = [go(loaded, tmp_path, x=i).run for i in range(3)]
    runs = tmp_path / "out" / "runs"
    for name, text in (("0", "{"), ("zz", "[]"), ("zzz", '{"other": 1}'), ("y", "\udcff")):
        (runs / name).mkdir()
        (runs / name / "run.json").write_text(text, errors="surrogateescape")
    (runs / "stray").touch()
    assert [r["run"] for r in list_runs(runs)] == ids
    assert list_runs(tmp_path / "no") == []


def test_a_record_is_found_by_its_beginning_or_as_the_last(loaded: LoadedGraph, tmp_path: Path) -> None:
    runs = tmp_path / "out" / "runs"
    with pytest.raises(UserError, match="there is no run 'last'"):
        read_run(runs, "last")
    first, second = (go(loaded, tmp_path, x=i).run for i in range(2))
    assert read_run(runs, "last")["run"] == second
    assert read_run(runs, first[:-2])["run"] == first
    with pytest.raises(UserError, match=f"2 runs begin with '{first[:8]}'"):
        read_run(runs, first[:8])
    with pytest.raises(UserError, match=rf"there is no run .*; did you mean '{first[:-4]}"):
        read_run(runs, first[:-4] + "zzzz")
    (runs / first / "run.json").write_text("{")
    with pytest.raises(UserError, match=f"the record of run {first} cannot be read"):
        read_run(runs, first)


def test_a_difference_of_two_runs_names_inputs_steps_and_outputs(loaded: LoadedGraph, tmp_path: Path) -> None:
    runs = tmp_path / "out" / "runs"
    one, two = (read_run(runs, go(loaded, tmp_path, x=i).run) for i in (1, 2))
    assert {row[0] for row in diff_runs(one, two)} == {"inputs.x", "steps.a", "outputs.a"}
    assert ("inputs.x", 1, 2) in diff_runs(one, two)
    three = read_run(runs, go(loaded, tmp_path, x=1).run)
    assert diff_runs(one, three) == []
    assert diff_runs({}, {}) == []


def test_a_record_that_cannot_be_written_is_a_warning(loaded: LoadedGraph, tmp_path: Path, log: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "runs").touch()
    result = go(loaded, tmp_path, log)
    assert len(result.files) == 2
    assert ["the run's record could not be written" in e.message for e in log.of("warned")] == [True]


def test_records_are_plain_json(loaded: LoadedGraph, tmp_path: Path) -> None:
    result = go(loaded, tmp_path)
    text = (tmp_path / "out" / "runs" / result.run / "run.json").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(word))
