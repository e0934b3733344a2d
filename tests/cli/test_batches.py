"""`mezzotint run --each` and `--sweep`."""

from __future__ import annotations

import json
import time

import pytest


def values(done):
    return [json.loads(path.read_text()) for path in done.files]


@pytest.fixture
def words_graph(write):
    return write(
        {
            "t": {
                "use": "arith.text@1",
                "inputs": {"words": {"ref": "inputs.prompt"}, "times": {"ref": "inputs.times"}},
            }
        },
        inputs={
            "prompt": {"type": "string", "default": "x"},
            "times": {"type": "integer", "default": 1, "minimum": 0},
        },
        name="words.json",
    )


def test_each_line_is_a_run_for_the_first_string_input(cli, words_graph, place):
    (place / "prompts.txt").write_text("a red circle\n\nblue, and small\n")
    done = cli("run", words_graph, "--each", "prompts.txt")
    assert done.code == 0 and values(done) == ["a red circle", "blue, and small"]
    assert [p.name.rpartition("-")[0] for p in done.files] == [
        "words-prompt-a-red-circle-result",
        "words-prompt-blue-and-small-result",
    ]
    assert "[1/2] prompt=a red circle" in done.err and "2 of 2 runs done" in done.err


def test_each_names_the_input_and_reads_tables(cli, words_graph, place):
    (place / "p.txt").write_text("a\n")
    assert values(cli("run", words_graph, "--each", "prompt=p.txt")) == ["a"]
    (place / "rows.csv").write_text('prompt,times\n"a, b",2\nc,\n')
    assert values(cli("run", words_graph, "--each", "rows.csv")) == ["a, b a, b", "c"]
    (place / "rows.jsonl").write_text('{"prompt": "q", "times": 3}\n')
    assert values(cli("run", words_graph, "--each", "rows.jsonl")) == ["q q q"]


def test_sweeps_multiply(cli, words_graph):
    done = cli("run", words_graph, "--sweep", "times=1..2", "--sweep", "prompt=a,b")
    assert values(done) == ["a", "b", "a a", "b b"]
    assert len({p.name for p in done.files}) == 4


def test_what_runs_share_is_done_once(cli, sum_graph, log):
    cli("run", sum_graph, "--sweep", "steps=1..4", "--wanted", "total")
    assert log().count("add 1 2") == 1 and log().count("slow from 0") == 4


def test_what_runs_share_is_done_once_without_the_cache_too(cli, sum_graph, log):
    cli("run", sum_graph, "--sweep", "steps=1..4", "--wanted", "total", "--no-cache")
    assert log().count("add 1 2") == 1


def test_one_failed_run_does_not_stop_the_others(cli, write, log):
    graph = write(
        {"d": {"use": "arith.divide@1", "inputs": {"a": 6, "b": {"ref": "inputs.b"}}}},
        inputs={"b": {"type": "number", "default": 1}},
    )
    done = cli("run", graph, "--sweep", "b=2,0,3")
    assert done.code == 1 and values(done) == [3.0, 2.0]
    assert "2 of 3 runs done, 1 failed" in done.err and "failed: b=0.0" in done.err
    before = len(log())
    done = cli("run", graph, "--sweep", "b=2,0,3")
    assert done.code == 1 and log()[before:] == ["divide 6 0"]


def test_fail_fast_stops_the_batch(cli, write):
    graph = write(
        {"d": {"use": "arith.divide@1", "inputs": {"a": 6, "b": {"ref": "inputs.b"}}}},
        inputs={"b": {"type": "number", "default": 1}},
    )
    done = cli("run", graph, "--sweep", "b=0,3", "--fail-fast")
    assert done.code == 1 and "1 not run" in done.err


def test_everything_wrong_is_said_before_anything_runs(cli, words_graph, place, log):
    (place / "rows.csv").write_text("prompt,tims\na,1\nb\n")
    done = cli("run", words_graph, "--each", "rows.csv")
    assert done.code == 2 and log() == []
    assert "rows.csv line 2, tims: the graph has no such input; did you mean 'times'?" in done.err
    assert "rows.csv line 3: 2 columns are wanted" in done.err
    done = cli("run", words_graph, "--sweep", "times=-1..1")
    assert done.code == 2 and "--sweep times: input should be greater than or equal to 0" in done.err
    done = cli("run", words_graph, "--sweep", "times=1,2", "--times", "3")
    assert done.code == 2 and "'times' is given twice" in done.err


def test_json_says_which_run_an_event_belongs_to(cli, words_graph):
    events = cli("run", words_graph, "--sweep", "times=1,2", "--json").events
    assert [e["item"] for e in events if e["event"] == "result"] == [1, 2]
    assert events[-1] | {"seconds": 0} == {
        "event": "batch_finished", "of": 2, "done": 2, "failed": 0, "left": 0, "seconds": 0
    }  # fmt: skip


def test_a_killed_batch_goes_on_where_it_was(start, cli, write, log):
    graph = write(
        {"s": {"use": "arith.slow@1", "inputs": {"value": {"ref": "inputs.v"}, "steps": 20, "pause": 0.03}}},
        inputs={"v": {"type": "number", "default": 0}},
    )
    process = start("run", graph, "--sweep", "v=0..2")
    deadline = time.monotonic() + 60
    while log().count("slow from 0") < 2 or log()[-1] == "slow from 0":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    steps = sum(line.startswith("step") for line in log())
    assert steps < 40
    done = cli("run", graph, "--sweep", "v=0..2")
    assert done.code == 0 and values(done) == [0.0, 1.0, 2.0]
    assert log().count("step 1") == 3, "no run began anew"
    assert sum(line.startswith("step") for line in log()) <= 61
