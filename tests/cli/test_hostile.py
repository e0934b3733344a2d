"""Input that is broken, absurd or hostile: an exit code, one clear message, and nothing half-written."""

from __future__ import annotations

import json
import os

import pytest


@pytest.fixture
def refused(cli, place, log):
    """Run a command line that must be refused, for one reason, before anything runs or is written."""

    def call(*words, saying, code=2):
        done = cli(*words)
        assert done.code == code, done.err
        errors = [line for line in done.err.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, done.err
        assert saying in errors[0]
        assert "Traceback" not in done.err and done.out == ""
        assert log() == []
        assert not list((place / "outputs").iterdir() if (place / "outputs").is_dir() else ())
        assert not (place / "runs").exists()
        return done

    return call


TEXT = '{"format": 1, "nodes": {"a": {"use": "arith.add@1", "inputs": {"a": %s}}}, "outputs": {"a": {"ref": "a"}}}'

BROKEN = {
    "truncated": (TEXT[:40], "not valid JSON"),
    "empty": ("", "not valid JSON"),
    "a duplicate key": ('{"format": 1, "format": 1, "nodes": {}}', "the key 'format' stands twice"),
    "nested 10,000 deep": ('{"format": 1, "nodes": ' + "[" * 10_000 + "]" * 10_000 + "}", "nested"),
    "deep in a literal": (TEXT % ("[" * 300 + "]" * 300), "nested"),
    "a list": ("[]", "a graph is a JSON object"),
    "not a number": (TEXT % "NaN", "NaN is not JSON"),
    "endless digits": (TEXT % ("9" * 10_000), ""),
    "an unknown key": ('{"format": 1, "nodes": {}, "nods": {}}', "unknown key 'nods'; did you mean 'nodes'?"),
    "another format": ('{"format": 2, "nodes": {}}', "/format"),
    "an unknown node": (TEXT.replace("arith.add", "arith.ad") % "1", "did you mean 'arith.add'?"),
    "no version": (TEXT.replace("@1", "") % "1", "the newest is arith.add@1"),
    "a version of the future": (TEXT.replace("@1", "@9") % "1", "is newer than what is installed"),
    "an unknown port": (TEXT.replace('"ref": "a"', '"ref": "a.sum"') % "1", "'sum'"),
    "an unknown input": (TEXT.replace('{"a": %s}', '{"a": 1, "q": 1}'), "no input 'q'"),
    "a wrong type": (TEXT % '"x"', "/nodes/a/inputs/a"),
    "a cycle": (TEXT % '{"ref": "a"}', "cycle: a -> a"),
    "a link into nothing": (TEXT % '{"ref": "nobody.value"}', "nobody"),
    "a bad link": (TEXT.replace('"ref": "a"', '"ref": "../x"') % "1", "bad link"),
    "a missing subgraph": (TEXT.replace("arith.add@1", "graph:absent.json") % "1", "absent.json"),
    "itself": (TEXT.replace("arith.add@1", "graph:graph.json") % "1", "cannot contain itself"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("verb", ["run", "validate", "plan"])
def test_a_graph_that_is_broken_is_refused_in_one_line(refused, place, case, verb):
    text, saying = BROKEN[case]
    (place / "graph.json").write_text(text)
    refused(verb, "graph.json", saying=saying)


def test_a_graph_of_a_hundred_megabytes_is_refused_unread(refused, place):
    with open(place / "graph.json", "wb") as file:
        file.write(b'{"format": 1')
        file.truncate(100 * 2**20)
    refused("run", "graph.json", saying="a graph file has at most")


def test_bytes_that_are_no_text_are_refused(refused, place):
    (place / "graph.json").write_bytes(b'{"format": 1, "name": "\xff\xfe"}')
    refused("run", "graph.json", saying="not UTF-8")


@pytest.mark.parametrize(
    "name", ["absent.json", "bundled:graphs/absent.json", "bundled:graphs/../setup.py", "a\0b"]
)
def test_a_graph_that_is_not_there_is_named(refused, name):
    refused("run", name, saying="there is no" if "\0" not in name else "NUL")


def test_a_folder_is_no_graph(refused, place):
    (place / "folder.json").mkdir()
    refused("run", "folder.json", saying="cannot read the graph")


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/hostname", "link.txt", "inside/../../secret.txt"])
def test_a_path_written_in_a_graph_cannot_climb_out(refused, write, place, path):
    (place.parent / "secret.txt").write_text("secret")
    (place / "link.txt").symlink_to(place.parent / "secret.txt")
    (place / "inside").mkdir()
    graph = write({"r": {"use": "arith.read@1", "inputs": {"file": path}}})
    refused("run", graph, saying="leaves the folder")


def test_a_path_is_allowed_by_its_folder_or_by_the_caller(cli, write, place):
    (place.parent / "secret.txt").write_text("secret")
    graph = write(
        {"r": {"use": "arith.read@1", "inputs": {"file": {"ref": "inputs.file"}}}},
        inputs={"file": {"type": "string", "format": "path", "default": "../secret.txt"}},
    )
    assert "leaves the folder" in cli("run", graph).err
    done = cli("run", graph, "--allow", place.parent)
    assert json.loads(done.files[0].read_text()) == "secret"
    assert cli("run", graph, "--file", "../secret.txt").code == 0


def test_a_subgraph_cannot_reach_out_of_the_graphs_folder(refused, write, place):
    write({"a": {"use": "arith.add@1", "inputs": {"a": 1}}}, name="../outside.json")
    graph = write({"g": {"use": "graph:../outside.json"}}, outputs={"x": {"ref": "g.result"}})
    refused("run", graph, saying="leaves the folder")


def test_a_missing_file_is_named_before_anything_runs(refused, write):
    graph = write({"r": {"use": "arith.read@1", "inputs": {"file": "absent.txt"}}})
    refused("run", graph, saying="there is no file 'absent.txt'")


@pytest.mark.parametrize(
    ("source", "saying"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def (", "SyntaxError"),
        ("raise RuntimeError('boom')", "boom"),
        ("import sys; sys.exit(0)", "sys.exit"),
        (
            "from mezzotint import hookimpl\n@hookimpl\ndef register_nods(register): pass",
            "did you mean 'register_nodes'?",
        ),
        ("from mezzotint import hookimpl\n@hookimpl\ndef register_nodes(register): register(3)", "not a node"),
        ("from mezzotint import hookimpl\n@hookimpl\ndef register_nodes(register): 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_plugin_that_is_broken_is_named_with_the_reason(refused, sum_graph, place, source, saying):
    (place / "bad.py").write_text(source)
    done = refused("run", sum_graph, "--plugin", "bad.py", saying=saying)
    assert "bad.py" in done.err


def test_a_plugin_that_is_not_there_is_named(refused, sum_graph):
    refused("run", sum_graph, "--plugin", "absent.py", saying="absent.py")


def test_a_node_that_returns_what_it_did_not_promise_fails_alone(cli, write, place):
    (place / "liar.py").write_text(
        "from mezzotint import Image, hookimpl, node\n"
        '@node("liar.picture")\n'
        "def picture() -> Image:\n"
        '    """A picture, it says."""\n'
        "    return 'no picture'\n"
        "@hookimpl\n"
        "def register_nodes(register):\n"
        "    register(picture)\n"
    )
    graph = write(
        {"lie": {"use": "liar.picture@1"}, "good": {"use": "arith.add@1", "inputs": {"a": 1}}},
        outputs={"lie": {"ref": "lie"}, "good": {"ref": "good"}},
    )
    done = cli("run", graph, "--plugin", "liar.py")
    assert done.code == 1 and len(done.files) == 1
    assert "returned str for output 'image', wanted Image" in done.err


def test_an_output_folder_that_cannot_be_written_is_found_out_first(cli, sum_graph, place, log):
    (place / "file").write_text("in the way")
    done = cli("run", sum_graph, "--out", "file")
    assert done.code == 2 and "cannot write into file" in done.err and log() == []
    done = cli("run", sum_graph, "--out", "file/below")
    assert done.code == 2 and log() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission_is_found_out_first(cli, sum_graph, place, log):
    (place / "locked").mkdir(mode=0o500)
    done = cli("run", sum_graph, "--out", "locked")
    assert done.code == 2 and "Permission denied" in done.err and log() == []


def test_a_store_that_cannot_be_used_is_named_with_the_way_out(cli, sum_graph, place, monkeypatch):
    (place / "file").write_text("in the way")
    monkeypatch.setenv("MEZZOTINT_CACHE", str(place / "file"))
    done = cli("run", sum_graph)
    assert done.code == 2 and "--no-cache" in done.err and "Traceback" not in done.err
    assert cli("run", sum_graph, "--no-cache").code == 0


@pytest.mark.parametrize(
    ("flags", "saying"),
    [
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--dtype", "int4"], "unknown dtype 'int4'"),
        (["--workers", "0"], "--workers"),
        (["--memory", "lots"], "--memory"),
        (["--timeout", "0"], "more than 0 seconds"),
        (["--timeout", "soon"], "--timeout"),
        (["--retries", "-1"], "--retries"),
        (["--input", "a"], "wanted NAME=VALUE"),
        (["--input", "aa=1"], "did you mean 'a'?"),
        (["--a", "1", "--input", "a=2"], "given by --a too"),
        (["--a", "1e999"], "--a"),
        (["--steps", "9" * 5000], "--steps"),
        (["--steps", "2.0"], "wanted an integer"),
        (["--each", "absent.txt"], "absent.txt"),
        (["--sweep", "steps=9..1"], "going up"),
        (["--sweep", "steps=1..999999999"], "more than 100,000 values"),
        (["--sweep", "steps"], "wanted INPUT=VALUES"),
        (["--sweep", "stepz=1"], "did you mean 'steps'?"),
        (["--wanted", "totl"], "did you mean 'total'?"),
        (["extra"], "extra"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line(refused, sum_graph, flags, saying):
    refused("run", sum_graph, *flags, saying=saying)


def test_batches_that_multiply_beyond_reason_are_refused(refused, sum_graph):
    sweeps = ["--sweep", "a=0..100", "--sweep", "steps=1..50", "--sweep", "cfg_scale=0..99"]
    refused("run", sum_graph, *sweeps, saying="the batch has 505,000 runs")


def test_a_sweep_out_of_range_is_said_once(refused, sum_graph):
    done = refused(
        "run", sum_graph, "--sweep", "a=0..999", saying="--sweep a: 899 of 1,000 values are out of range"
    )
    assert "got 101" in done.err


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        (b"\x89PNG\r\n\x1a\n", "picture.png"),
        (b"not a picture", "picture.png"),
        (b"", "picture.png"),
    ],
)
def test_a_picture_that_is_none_is_refused(refused, place, content, saying):
    (place / "picture.png").write_bytes(content)
    refused("run", "picture.png", saying=saying)


def test_a_picture_runs_again_with_the_inputs_inside_as_defaults(cli, write, place):
    graph = write(
        {"p": {"use": "image.solid@1", "inputs": {"width": {"ref": "inputs.width"}, "height": 8}}},
        inputs={"width": {"type": "integer", "default": 8, "minimum": 1}},
    )
    first = cli("run", graph, "--width", "12")
    picture = first.files[0]
    assert "default: 12" in cli("run", picture, "--help").out
    again = cli("run", picture, "--out", "again", "--name", "graph")
    assert again.code == 0, again.err
    assert again.files[0].read_bytes() == picture.read_bytes()
    assert cli("run", picture, "--width", "9").code == 0


def test_a_path_inside_a_picture_is_not_the_callers(cli, write, place):
    (place.parent / "secret.txt").write_text("secret")
    graph = write(
        {
            "r": {"use": "arith.read@1", "inputs": {"file": {"ref": "inputs.file"}}},
            "p": {"use": "image.solid@1", "inputs": {"width": 8, "height": 8}},
        },
        outputs={"p": {"ref": "p"}, "r": {"ref": "r"}},
        inputs={"file": {"type": "string", "format": "path"}},
    )
    made = cli("run", graph, "--file", place.parent / "secret.txt")
    picture = next(p for p in made.files if p.suffix == ".png")
    done = cli("run", picture)
    assert done.code == 2 and "leaves the folder" in done.err
    assert cli("run", picture, "--file", place.parent / "secret.txt").code == 0


def test_a_graphs_name_is_no_path(cli, write, place):
    graph = write({"a": {"use": "arith.add@1", "inputs": {"a": 1}}})
    doc = json.loads(graph.read_text()) | {"name": "../../evil\x1b[31m/x"}
    graph.write_text(json.dumps(doc))
    (file,) = cli("run", graph).files
    assert file.parent.resolve() == place / "outputs" and file.exists()
    assert cli("run", graph, "--sweep", "a=1").code == 2


def test_nothing_in_a_graph_steers_the_terminal(cli, write):
    evil = "\x1b]0;evil\x07\x9b2J"
    graph = write(
        {"a": {"use": "arith.text@1", "inputs": {"words": {"ref": "inputs.words"}}}},
        inputs={"words": {"type": "string", "default": evil, "description": evil, "enum": [evil, "x"]}},
        description=evil,
    )
    shown = [
        cli("run", graph, "--help"),
        cli("run", graph),
        cli("plan", graph),
        cli("runs", "ls"),
        cli("runs", "show"),
    ]
    shown += [cli("run", graph, "--words", "y"), cli("run", graph, "--sweep", f'words=["{evil[1:4]}", "x"]')]
    for done in shown:
        assert not {"\x1b", "\x07", "\x9b"} & set(done.out + done.err)


def test_a_file_that_is_given_and_not_there_is_named_by_its_flag(refused, write):
    graph = write(
        {"r": {"use": "arith.read@1", "inputs": {"file": {"ref": "inputs.file"}}}},
        inputs={"file": {"type": "string", "format": "path"}},
    )
    refused("run", graph, "--file", "absent.txt", saying="--file: there is no file 'absent.txt'")
