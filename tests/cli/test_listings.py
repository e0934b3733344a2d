"""`mezzotint nodes`, `plugins`, `schema`, `cache`, `runs`, `new-plugin`, `doctor`, completion."""

from __future__ import annotations

import json

import pytest


def test_nodes_lists_every_node_with_its_package(cli):
    out = cli("nodes").out
    assert "image.load@1" in out and "arith.add@1" in out and "flow.map@1" in out and "arith.py" in out


@pytest.mark.parametrize("pattern", ["arith", "arith.*", "quotient"])
def test_nodes_takes_a_part_of_a_name_or_a_pattern(cli, pattern):
    out = cli("nodes", pattern).out
    assert "arith.divide@1" in out and "image.load" not in out


def test_nodes_without_a_match_say_so(cli):
    assert cli("nodes", "nothing.*").code == 2


@pytest.mark.parametrize("id", ["arith.slow", "arith.slow@1"])
def test_nodes_show_documents_one(cli, id):
    out = cli("nodes", "show", id).out
    assert "arith.slow@1  (arith.py)" in out
    assert "integer, 1 to 10000, default 10. how many." in out
    assert "value  number, required. given back." in out


@pytest.mark.parametrize("id", ["flow.map", "flow.switch@1"])
def test_nodes_show_documents_the_flow_forms(cli, id):
    assert "known when planning" in cli("nodes", "show", id).out.replace("\n", " ")


def test_nodes_show_finds_the_nearest(cli):
    done = cli("nodes", "show", "arith.ad")
    assert done.code == 2 and "did you mean 'arith.add'?" in done.err
    assert "the newest is arith.add@1" in cli("nodes", "show", "arith.add@7").err


def test_nodes_as_json(cli):
    (node,) = cli("nodes", "show", "arith.slow", "--json").json
    assert [i["name"] for i in node["inputs"]] == ["value", "steps", "pause"]
    assert node["inputs"][1]["range"] == "1 to 10000"


def test_plugins_lists_where_each_comes_from(cli):
    done = cli("plugins")
    assert done.code == 0 and "arith.py" in done.out and "image" in done.out


def test_a_broken_plugin_is_listed_with_its_traceback(cli, place):
    (place / "broken.py").write_text("import no_such_module\n")
    done = cli("plugins", "--plugin", "broken.py")
    assert done.code == 1 and "broken" in done.out and "No module named 'no_such_module'" in done.out
    assert "Traceback" not in done.out
    assert "Traceback" in cli("plugins", "--plugin", "broken.py", "--debug").out


def test_cache_lists_counts_verifies_and_empties(cli, sum_graph):
    cli("run", sum_graph)
    assert "arith.add@1" in cli("cache", "ls").out
    rows = cli("cache", "ls", "--json").json
    assert {"arith.add@1", "arith.slow@1", "output"} <= {row["node"] for row in rows}
    assert cli("cache", "verify").code == 0
    assert cli("cache", "gc", "--limit", "0").code == 0
    assert cli("cache", "ls", "--json").json == []
    cli("run", sum_graph)
    assert cli("cache", "clear").code == 2, "there is nobody to ask"
    assert cli("cache", "clear", "--yes").code == 0
    assert cli("cache", "ls", "--json").json == []


def test_cache_verify_sets_damage_aside(cli, sum_graph, place):
    import sqlite3

    cli("run", sum_graph)
    with sqlite3.connect(place.parent / "cache" / "index.sqlite") as connection:
        connection.execute("update entry set body = x'00' where kind = 'bytes'")
    done = cli("cache", "verify")
    assert done.code == 1 and "2 damaged" in done.out
    assert cli("cache", "verify").code == 0


def test_cache_sizes_are_checked(cli):
    done = cli("cache", "gc", "--limit", "much")
    assert done.code == 2 and "--limit" in done.err


def test_runs_are_listed_shown_and_compared(cli, sum_graph):
    cli("run", sum_graph)
    cli("run", sum_graph, "--a", "5")
    first, second = (record["run"] for record in cli("runs", "ls", "--json").json)
    assert first in cli("runs", "ls").out
    shown = cli("runs", "show", first).out
    assert "a = 1.0" in shown and "arith.add@1" in shown and "outputs/" in shown
    done = cli("runs", "diff", first, second)
    assert done.code == 1 and "inputs.a" in done.out
    assert cli("runs", "diff", second, "last").code == 0


def test_a_run_that_is_not_there_is_an_error(cli):
    assert cli("runs", "show", "2020").code == 2
    assert cli("runs", "show").code == 2


def test_new_plugin_writes_a_package_once(cli, place):
    done = cli("new-plugin", "acme-nodes")
    assert done.code == 0 and (place / "acme-nodes" / "pyproject.toml").is_file()
    assert cli("new-plugin", "acme-nodes").code == 2
    assert cli("new-plugin", "a b").code == 2


def test_doctor_looks_at_every_part(cli):
    done = cli("doctor", "--json")
    states = {finding["what"]: finding["state"] for finding in done.json}
    assert {"mezzotint", "torch", "device", "triton", "plugins", "cache", "weights", "graphs"} <= set(states)
    assert states["torch"] == states["plugins"] == states["cache"] == "ok"
    assert done.code == (1 if "fail" in states.values() else 0)


def test_a_verb_that_is_not_there_is_met_with_the_nearest(cli):
    done = cli("rnu", "x.json")
    assert done.code == 2 and "did you mean 'run'?" in done.err
    assert "mezzotint run x.json" in cli("x.json").err


def test_version_and_completion_scripts(cli):
    assert cli("--version").out.startswith("mezzotint ")
    for shell in ("bash", "zsh", "fish"):
        assert "_MEZZOTINT_COMPLETE" in cli("--completion", shell).out


def complete(*words):
    from click.shell_completion import ShellComplete

    from mezzotint.cli import Flags, mezzotint

    shell = ShellComplete(mezzotint, {"obj": Flags()}, "mezzotint", "_MEZZOTINT_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_completion_knows_verbs_graphs_inputs_choices_and_nodes(place, sum_graph, write):
    (place / "notes.txt").touch()
    write(
        {"t": {"use": "arith.text@1", "inputs": {"words": "x"}}},
        inputs={"mode": {"type": "string", "enum": ["fast", "exact"], "default": "fast"}},
        name="mode.json",
    )
    assert complete("va") == ["validate"]
    assert set(complete("run", "")) == {"sum.json", "mode.json"}
    assert "--cfg-scale" in complete("run", "sum.json", "--c")
    assert complete("run", "mode.json", "--mode", "e") == ["exact"]
    assert "arith.slow" in complete("nodes", "show", "arith.s")
    assert complete("run", "absent.json", "--cfg") == []
    assert all(json.loads(json.dumps(w)).startswith("bundled:graphs/") for w in complete("run", "bundled:g"))
