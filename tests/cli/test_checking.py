"""`mezzotint validate` and `plan`."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

BAD = {
    "a": {"use": "arith.ad@1", "inputs": {"x": 1}},
    "b": {"use": "arith.add@1", "inputs": {"a": {"ref": "c.value"}, "b": "q"}},
}


def test_a_sound_graph_is_said_to_be_sound(cli, sum_graph):
    done = cli("validate", sum_graph)
    assert done.code == 0 and "no errors" in done.err and done.out == ""


def test_every_problem_is_a_line_with_its_place(cli, write):
    done = cli("validate", write(BAD))
    assert done.code == 2
    lines = done.err.splitlines()
    assert "error: graph.json#/nodes/a/use: unknown node 'arith.ad'; did you mean 'arith.add'?" in lines
    assert any(line.startswith("error: graph.json#/nodes/b/inputs/a: there is no node 'c'") for line in lines)
    assert any(line.startswith("error: graph.json#/nodes/b/inputs/b:") for line in lines)


def test_json_has_a_field_for_everything(cli, write):
    done = cli("validate", write(BAD), "--json")
    assert done.code == 2
    keys = {"pointer", "message", "code", "file", "got", "wanted", "suggestion", "severity"}
    assert all(set(problem) == keys for problem in done.json)
    assert {"unknown_node", "bad_link", "bad_value"} <= {problem["code"] for problem in done.json}


def test_warnings_alone_are_no_failure(cli, write):
    graph = write(
        {"x": {"use": "arith.add@1", "inputs": {"a": 1}}, "y": {"use": "arith.add@1", "inputs": {"a": 1}}}
    )
    done = cli("validate", graph, "--json")
    assert done.code == 0 and [p["severity"] for p in done.json] == ["warning"]


def test_several_files_are_checked_in_one_go(cli, write, sum_graph):
    write(BAD, name="bad.json")
    done = cli("validate", "sum.json", "bad.json", "absent.json")
    assert done.code == 2 and "bad.json#" in done.err and "there is no file 'absent.json'" in done.err


def test_the_bundled_graphs_are_sound(cli):
    from mezzotint.cli.completion import bundled_graphs

    assert cli("validate", *bundled_graphs()).code == 0


def test_plan_says_what_would_run_and_what_is_cached(cli, sum_graph):
    assert "2 steps: 2 to run, 0 cached" in cli("plan", sum_graph).out
    cli("run", sum_graph)
    assert "2 steps: 0 to run, 2 cached" in cli("plan", sum_graph).out
    states = {s["node"]: s["state"] for s in cli("plan", sum_graph, "--steps", "7", "--json").json["steps"]}
    assert states == {"add": "load", "slow": "run"}
    assert "2 to run" in cli("plan", sum_graph, "--no-cache").out


def test_plan_prunes_to_what_is_wanted(cli, sum_graph):
    assert [s["node"] for s in cli("plan", sum_graph, "--wanted", "sum", "--json").json["steps"]] == ["add"]


def test_plan_lists_the_files_that_would_be_read_with_their_sizes(cli, write, place):
    (place / "words.txt").write_text("x" * 1500)
    graph = write({"r": {"use": "arith.read@1", "inputs": {"file": "words.txt"}}})
    (load,) = cli("plan", graph, "--json").json["loads"]
    assert (load["name"], load["bytes"], load["steps"]) == ("words.txt", 1500, ["r"])
    assert "1.5 kB" in cli("plan", graph).out
    cli("run", graph)
    assert cli("plan", graph, "--json").json["loads"] == []


def test_plan_traces_a_model_to_the_steps_that_load_it(cli, place, write):
    (place / "plugin.py").write_text(
        "from mezzotint import *\n"
        '@node("toy.open")\n'
        "def open_(source: Source) -> Denoiser:\n"
        '    """Open."""\n'
        '    return Denoiser(source, "toy.x")\n'
        '@node("toy.use")\n'
        "def use(model: Denoiser) -> Image:\n"
        '    """Use."""\n'
        '@node("toy.after")\n'
        "def after(image: Image) -> Image:\n"
        '    """After."""\n'
        "@hookimpl\n"
        "def register_nodes(register):\n"
        "    register(open_), register(use), register(after)\n"
    )
    (place / "weights").mkdir()
    (place / "weights" / "model.safetensors").write_bytes(b"0" * 2500)
    nodes = {
        "model": {"use": "toy.open@1", "inputs": {"source": "weights"}},
        "sample": {"use": "toy.use@1", "inputs": {"model": {"ref": "model"}}},
        "after": {"use": "toy.after@1", "inputs": {"image": {"ref": "sample"}}},
    }
    done = cli("plan", write(nodes), "--json", "--plugin", "plugin.py")
    (load,) = done.json["loads"]
    assert load["bytes"] == 2500 and load["steps"] == ["model", "sample"]


@pytest.mark.parametrize("form", ["dot", "mermaid"])
def test_plan_draws_every_step_and_link(cli, sum_graph, form):
    done = cli("plan", sum_graph, f"--{form}")
    assert done.code == 0 and done.out.count("arith.") == 2
    assert done.out.count("->" if form == "dot" else "-->") == 3
    if form == "dot" and shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=done.out, text=True, check=True, capture_output=True)


def test_one_form_of_a_plan_at_a_time(cli, sum_graph):
    assert cli("plan", sum_graph, "--dot", "--json").code == 2


def test_a_plan_needs_its_inputs_in_range(cli, sum_graph):
    done = cli("plan", sum_graph, "--steps", "0")
    assert done.code == 2 and "--steps:" in done.err


def test_subgraphs_and_maps_are_planned_as_one(cli, write, sum_graph):
    graph = write(
        {
            "each": {
                "use": "flow.map@1",
                "inputs": {"graph": "graph:sum.json", "over": {"steps": {"ref": "inputs.steps"}}},
            }
        },
        outputs={"totals": {"ref": "each.total"}},
        inputs={"steps": {"type": "array", "items": {"type": "integer"}, "default": [1, 2, 3]}},
        name="mapped.json",
    )
    assert len(cli("plan", graph, "--json").json["steps"]) == 4
    done = cli("run", graph)
    assert json.loads(done.files[0].read_text()) == [3.0, 3.0, 3.0]
