"""`mezzotint run`: inputs as flags, files, records, what is shown, exit codes."""

from __future__ import annotations

import json

import pytest


def test_a_run_writes_the_outputs_and_prints_their_paths(cli, sum_graph):
    done = cli("run", sum_graph)
    assert done.code == 0
    assert [json.loads(path.read_text()) for path in done.files] == [3.0, 3.0]
    assert all(str(path).startswith("outputs/") for path in done.files)
    assert "2 steps run, 0 cached" in done.err


def test_a_run_is_recorded_beside_its_outputs(cli, sum_graph, place):
    cli("run", sum_graph, "--out", "far/away")
    (record,) = (place / "far" / "runs").glob("*/run.json")
    assert json.loads(record.read_text())["status"] == "done"


def test_the_same_run_again_runs_nothing(cli, sum_graph):
    first = cli("run", sum_graph)
    again = cli("run", sum_graph)
    assert "0 steps run, 2 cached" in again.err
    assert again.files == first.files


def test_without_the_cache_everything_runs(cli, sum_graph, log):
    cli("run", sum_graph)
    before = len(log())
    cli("run", sum_graph, "--no-cache")
    assert len(log()) == 2 * before


def test_flags_set_inputs_before_and_after_the_file(cli, sum_graph):
    done = cli("run", "--a", "5", sum_graph, "--cfg-scale=7")
    assert json.loads(done.files[0].read_text()) == 12.0


@pytest.mark.parametrize("flag", [["--cfg-scale", "4"], ["--cfg_scale", "4"], ["--input", "cfg_scale=4"]])
def test_an_input_with_an_underscore_has_three_spellings(cli, sum_graph, flag):
    assert json.loads(cli("run", sum_graph, *flag).files[0].read_text()) == 5.0


def test_help_lists_the_inputs_with_types_ranges_defaults_and_descriptions(cli, sum_graph):
    done = cli("run", sum_graph, "--help")
    assert done.code == 0
    assert "Inputs of sum" in done.out
    assert "--a NUMBER" in done.out and "The first number.  [0 to 100; default: 1]" in done.out
    assert "--steps INTEGER" in done.out and "1 to 50" in done.out


def test_wrong_values_are_named_by_their_flags_all_at_once(cli, sum_graph):
    done = cli("run", sum_graph, "--a", "500", "--steps", "x")
    assert done.code == 2
    assert "error: --a: input should be less than or equal to 100; got 500.0" in done.err
    assert "error: --steps: wanted an integer, got 'x'" in done.err


def test_a_misspelt_flag_is_met_with_the_nearest_input(cli, sum_graph):
    done = cli("run", sum_graph, "--stepz", "3")
    assert done.code == 2
    assert "no such option --stepz; did you mean --steps?" in done.err


def test_a_missing_input_is_named(cli, write):
    graph = write(
        {"t": {"use": "arith.text@1", "inputs": {"words": {"ref": "inputs.prompt"}}}},
        inputs={"prompt": {"type": "string"}},
    )
    done = cli("run", graph)
    assert done.code == 2
    assert "the input 'prompt' must be given" in done.err
    assert "[required]" in cli("run", graph, "--help").out


def test_an_input_that_clashes_with_a_flag_is_reached_by_input(cli, write):
    graph = write(
        {"t": {"use": "arith.text@1", "inputs": {"words": {"ref": "inputs.out"}}}},
        inputs={"out": {"type": "string", "default": "x"}},
    )
    done = cli("run", graph, "--out", "there", "--input", "out=words")
    assert json.loads(done.files[0].read_text()) == "words"
    assert done.files[0].parent.name == "there"
    assert "--input out=TEXT" in cli("run", graph, "--help").out


def test_booleans_lists_objects_and_choices_are_flags(cli, write):
    graph = write(
        {"t": {"use": "arith.text@1", "inputs": {"words": "x"}}},
        inputs={
            "tiled": {"type": "boolean", "default": False},
            "sizes": {"type": "array", "items": {"type": "integer", "minimum": 1}, "default": [1]},
            "names": {"type": "array", "items": {"type": "string"}, "default": []},
            "more": {"type": "object", "default": {}},
            "mode": {"type": "string", "enum": ["fast", "exact"], "default": "fast"},
        },
    )
    words = "--tiled --sizes 3 --sizes 4 --mode exact".split()
    assert cli("run", graph, *words, "--more", '{"a": [1]}', "--names", '["p, q", "r"]').code == 0
    inputs = cli("runs", "show", "--json").json["inputs"]
    assert inputs == {"tiled": True, "sizes": [3, 4], "names": ["p, q", "r"], "more": {"a": [1]}, "mode": "exact"}
    assert cli("run", graph, "--no-tiled").code == 0
    assert "--sizes/1: input should be greater" in cli("run", graph, "--sizes", "3", "--sizes", "0").err
    assert "did you mean 'exact'" in cli("run", graph, "--mode", "exat").err
    assert "wanted JSON" in cli("run", graph, "--more", "{").err


def test_json_prints_an_event_a_line_and_the_result_last(cli, sum_graph):
    events = cli("run", sum_graph, "--json").events
    kinds = [event["event"] for event in events]
    assert kinds[0] == "run_started" and kinds[-2:] == ["run_finished", "result"]
    assert {"node_started", "step_done", "node_finished", "output_written"} <= set(kinds)
    assert events[-1]["steps_run"] == 2 and len(events[-1]["files"]) == 2


def test_json_prints_errors_too(cli, place):
    done = cli("run", "absent.json", "--json")
    assert done.code == 2
    assert done.events[0]["event"] == "error" and "absent.json" in done.events[0]["message"]


def test_quiet_prints_paths_only(cli, sum_graph):
    done = cli("run", sum_graph, "--quiet")
    assert done.err == "" and len(done.files) == 2


def test_a_failing_node_leaves_the_others_running_and_gives_1(cli, write):
    graph = write(
        {
            "bad": {"use": "arith.divide@1", "inputs": {"a": 1, "b": 0}},
            "after": {"use": "arith.add@1", "inputs": {"a": {"ref": "bad"}}},
            "good": {"use": "arith.add@1", "inputs": {"a": 1}},
        },
        outputs={"after": {"ref": "after"}, "good": {"ref": "good"}},
    )
    done = cli("run", graph)
    assert done.code == 1
    assert [json.loads(p.read_text()) for p in done.files] == [1.0]
    assert "node 'bad' (arith.divide@1) failed: ZeroDivisionError" in done.err
    assert "Traceback" not in done.err and "1 failed, 1 not run" in done.err
    assert "Traceback" in cli("run", graph, "--debug").err


def test_wanted_makes_one_output_only(cli, sum_graph, log):
    done = cli("run", sum_graph, "--wanted", "sum")
    assert len(done.files) == 1 and log() == ["add 1 2"]
    done = cli("run", sum_graph, "--wanted", "sums")
    assert done.code == 2 and "did you mean 'sum'?" in done.err


def test_name_is_the_beginning_of_the_files(cli, sum_graph):
    assert all(p.name.startswith("mine-") for p in cli("run", sum_graph, "--name", "mine").files)
    assert cli("run", sum_graph, "--name", "../x").code == 2


def test_warnings_are_shown_and_stop_nothing(cli, write):
    graph = write(
        {"lost": {"use": "arith.add@1", "inputs": {"a": 1}}, "kept": {"use": "arith.add@1", "inputs": {"a": 1}}}
    )
    done = cli("run", graph)
    assert done.code == 0 and "warning: graph.json#/nodes/lost" in done.err


def test_a_damaged_stored_result_is_reported_and_made_again(cli, sum_graph, place):
    import sqlite3

    cli("run", sum_graph)
    with sqlite3.connect(place.parent / "cache" / "index.sqlite") as connection:
        for row, body in list(connection.execute("select rowid, body from entry where kind = 'bytes'")):
            flipped = bytes([body[0] ^ 1]) + body[1:]
            connection.execute("update entry set body = ? where rowid = ?", (flipped, row))
    done = cli("run", sum_graph)
    assert done.code == 0 and "warning: a stored result could not be used" in done.err
    assert json.loads(done.files[0].read_text()) == 3.0


def test_what_a_node_prints_does_not_mix_with_the_result(cli, write, place):
    (place / "chatty.py").write_text(
        "from mezzotint import hookimpl, node\n"
        '@node("chatty.talk")\n'
        "def talk() -> str:\n"
        '    """Talk."""\n'
        "    print('hello')\n"
        "    return 'x'\n"
        "@hookimpl\n"
        "def register_nodes(register):\n"
        "    register(talk)\n"
    )
    graph = write({"t": {"use": "chatty.talk@1"}})
    done = cli("run", graph, "--plugin", "chatty.py", "--json")
    assert done.events[-1]["status"] == "done" and "hello" in done.err
