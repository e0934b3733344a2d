"""Plans: what runs, in which order, and under which keys. Equal keys must mean equal results, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from mezzotint.api import LoadedGraph, load
from mezzotint.errors import GraphError, UserError
from mezzotint.hookspecs import hookimpl
from mezzotint.literals import FileRef
from mezzotint.nodes import node
from mezzotint.plan import Plan, StepOutput
from mezzotint.runtime import Runtime
from mezzotint.values import Source


class Pair(NamedTuple):
    low: int
    high: int


@node("t.num")
def num(*, value: int = 0) -> int:
    return value


@node("t.add")
def add(*, a: int, b: int = 0) -> int:
    return a + b


@node("t.scale")
def scale(*, value: float = 1, by: float = 2) -> float:
    return value * by


@node("t.split")
def split(*, value: int) -> Pair:
    return Pair(value // 2, value - value // 2)


@node("t.total")
def total(*, values: list[int]) -> int:
    return sum(values)


@node("t.any")
def anything(*, value: Any) -> Any:
    return value


@node("t.read")
def read(*, path: Path) -> str:
    return path.read_text()


@node("t.read_all")
def read_all(*, paths: list[Path]) -> list[str]:
    return [p.read_text() for p in paths]


@node("t.weights")
def weights(*, source: Source) -> str:
    return source.uri


@node("t.clock", cacheable=False)
def clock() -> float:
    """The time: it is never the same."""
    return time.time()


NODES = (num, add, scale, split, total, anything, read, read_all, weights, clock)


@hookimpl
def register_nodes(register: Callable[..., Any]) -> None:
    """This file is a plugin, too, for other processes."""
    for each in NODES:
        register(each)


@pytest.fixture
def runtime(kit: SimpleNamespace) -> Runtime:
    found: Runtime = kit.runtime_of(kit.registry_of(*NODES))
    return found


def n(use: str, **inputs: Any) -> dict[str, Any]:
    return {"use": use, "inputs": inputs}


def r(ref: str) -> dict[str, str]:
    return {"ref": ref}


def graph(
    runtime: Runtime, nodes: dict[str, Any], inputs: dict[str, Any] | None = None, **outputs: str
) -> LoadedGraph:
    doc = {"format": 1, "nodes": nodes, "inputs": inputs or {}, "outputs": {k: r(v) for k, v in outputs.items()}}
    return load(doc, runtime=runtime)


def saved(
    folder: Path, name: str, nodes: dict[str, Any], inputs: dict[str, Any] | None = None, **outputs: str
) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    doc = {"format": 1, "nodes": nodes, "inputs": inputs or {}, "outputs": {k: r(v) for k, v in outputs.items()}}
    path.write_text(json.dumps(doc))
    return path


def keys(plan: Plan) -> dict[str, str]:
    return {step.name: step.key for step in plan.steps.values()}


def only_key(runtime: Runtime, **nodes: Any) -> str:
    """The key of the last of these nodes."""
    plan = graph(runtime, nodes, None, o=list(nodes)[-1]).plan()
    return plan.outputs["o"].key  # type: ignore[no-any-return]


DIAMOND = {
    "a": n("t.num@1", value=r("inputs.x")),
    "left": n("t.add@1", a=r("a"), b=1),
    "right": n("t.add@1", a=r("inputs.y"), b=2),
    "sum": n("t.add@1", a=r("left"), b=r("right")),
    "unused": n("t.num@1", value=9),
}
XY = {"x": {"type": "integer", "default": 1}, "y": {"type": "integer", "default": 2}}


def test_steps_come_after_what_they_need_and_pruned_ones_not_at_all(runtime: Runtime) -> None:
    plan = graph(runtime, DIAMOND, XY, o="sum").plan()
    names = [s.name for s in plan.steps.values()]
    assert names == ["a", "left", "right", "sum"]


def test_only_wanted_outputs_are_planned(runtime: Runtime) -> None:
    loaded = graph(runtime, DIAMOND, XY, o="sum", p="right", q="inputs.x")
    assert list(keys(runtime.plan(loaded.graph, {}, ["p"]))) == ["right"]
    assert runtime.plan(loaded.graph, {}, ["q"]).outputs == {"q": 1}
    assert not runtime.plan(loaded.graph, {}, []).steps
    with pytest.raises(UserError, match="no output 'z'; it has o, p, q"):
        runtime.plan(loaded.graph, {}, ["z"])


def test_a_changed_input_changes_only_what_depends_on_it(runtime: Runtime) -> None:
    loaded = graph(runtime, DIAMOND, XY, o="sum")
    before, after = keys(loaded.plan()), keys(loaded.plan(y=5))
    assert {name for name in before if before[name] != after[name]} == {"right", "sum"}


def test_order_and_keys_are_the_same_in_every_process(tmp_path: Path, runtime: Runtime) -> None:
    path = saved(tmp_path, "g.json", {f"n{i}": n("t.num@1", value=i) for i in range(50)} | {
        "all": n("t.total@1", values=[r(f"n{i}") for i in range(50)]),
        "obj": n("t.any@1", value={"b": r("n1"), "a": {"z": 1, "y": [r("n2")]}}),
    }, None, o="all", p="obj")  # fmt: skip
    program = (
        "import sys, json\nfrom mezzotint.api import load\nfrom mezzotint.runtime import Runtime\n"
        "from mezzotint.plugins import load_registry\nfrom mezzotint.settings import Settings\n"
        "from mezzotint.store import MemoryStore\n"
        "registry = load_registry(installed=False, namespaces=(), files=[sys.argv[1]])\n"
        "plan = load(sys.argv[2], runtime=Runtime(registry, MemoryStore(), Settings(device='cpu'))).plan()\n"
        "print([(s.name, k) for k, s in plan.steps.items()])\n"
    )
    command = [sys.executable, "-c", program, __file__, str(path)]
    shown = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        shown.add(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    assert len(shown) == 1
    assert shown.pop().count("n") >= 50


def test_a_nodes_name_is_not_in_its_key(runtime: Runtime) -> None:
    assert only_key(runtime, a=n("t.num@1", value=3)) == only_key(runtime, other=n("t.num@1", value=3))


def test_equal_steps_are_one_step(runtime: Runtime) -> None:
    nodes = {"a": n("t.num@1", value=3), "b": n("t.num@1", value=3), "c": n("t.add@1", a=r("a"), b=r("b"))}
    plan = graph(runtime, nodes, None, o="c").plan()
    assert len(plan.steps) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (n("t.num@1"), n("t.num@1", value=0)),
        (n("t.scale@1"), n("t.scale@1", value=1, by=2.0)),
        (n("t.scale@1", value=1), n("t.scale@1", value=1.0)),
        (n("t.any@1", value={"a": 1, "b": 2}), n("t.any@1", value={"b": 2, "a": 1})),
        (n("t.any@1", value="x"), n("t.any@1", value={"literal": "x"})),
    ],
)
def test_what_means_the_same_has_the_same_key(runtime: Runtime, one: Any, other: Any) -> None:
    assert only_key(runtime, a=one) == only_key(runtime, a=other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (n("t.any@1", value=1), n("t.any@1", value=1.0)),
        (n("t.any@1", value=1), n("t.any@1", value=True)),
        (n("t.any@1", value=1), n("t.any@1", value="1")),
        (n("t.any@1", value=None), n("t.any@1", value="null")),
        (n("t.any@1", value=[[], 1]), n("t.any@1", value=[[1]])),
        (n("t.any@1", value={"literal": {"ref": "a"}}), n("t.any@1", value="a")),
        (n("t.any@1", value={"\0object": []}), n("t.any@1", value={})),
    ],
)
def test_what_differs_has_different_keys(runtime: Runtime, one: Any, other: Any) -> None:
    assert only_key(runtime, a=one) != only_key(runtime, a=other)


def test_a_literal_cannot_pass_for_a_link(runtime: Runtime) -> None:
    first = only_key(runtime, a=n("t.num@1", value=3))
    forged = {"\0step": first, "port": "value"}
    linked = only_key(runtime, a=n("t.num@1", value=3), b=n("t.any@1", value=[r("a"), 0]))
    assert only_key(runtime, b=n("t.any@1", value=[forged, 0])) != linked
    both = {"a": n("t.num@1", value=3)}
    one = only_key(runtime, **both, b=n("t.any@1", value=[r("a"), forged]))
    other = only_key(runtime, **both, b=n("t.any@1", value=[forged, r("a")]))
    assert one != other


def test_the_settings_that_change_numbers_are_in_the_key(kit: SimpleNamespace) -> None:
    registry = kit.registry_of(*NODES)
    found = {
        only_key(kit.runtime_of(registry, dtype=dtype), a=n("t.num@1", value=1))
        for dtype in ("float32", "bfloat16")
    }
    assert len(found) == 2
    assert only_key(kit.runtime_of(registry, workers=7), a=n("t.num@1", value=1)) in found


def test_an_uncacheable_node_never_has_the_same_key_nor_has_what_follows(runtime: Runtime) -> None:
    nodes = {"t": n("t.clock@1"), "u": n("t.clock@1"), "a": n("t.any@1", value=[r("t")]), "b": n("t.num@1")}
    loaded = graph(runtime, nodes, None, o="a", p="u", q="b")
    first, second = loaded.plan(), loaded.plan()
    assert len(first.steps) == 4
    assert keys(first)["t"] != keys(second)["t"]
    assert keys(first)["a"] != keys(second)["a"]
    assert {s.name: s.cacheable for s in first.steps.values()} == {"a": False, "t": False, "u": False, "b": True}


# --- files ---


def key_of_file(runtime: Runtime, path: Path) -> str:
    loaded = graph(runtime, {"a": n("t.read@1", path=r("inputs.p"))}, {"p": {"type": "string"}}, o="a")
    return loaded.plan(p=str(path)).outputs["o"].key  # type: ignore[no-any-return]


def test_a_files_content_is_in_the_key_and_its_name_is_not(runtime: Runtime, tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(text)
    a, b, c = (key_of_file(runtime, tmp_path / name) for name in "abc")
    assert a == b != c


def test_a_change_of_a_file_within_the_clocks_tick_is_seen(
    kit: SimpleNamespace, tmp_path: Path, store: Any
) -> None:
    runtime = kit.runtime_of(kit.registry_of(*NODES), store)
    path = tmp_path / "a"
    seen = set()
    for text in ("one", "two", "six"):
        path.write_text(text)
        os.utime(path, ns=(10**18, 10**18))
        seen.add(key_of_file(runtime, path))
    assert len(seen) == 3


def test_a_folder_is_known_by_all_that_is_in_it(runtime: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("1")
    before = key_of_file(runtime, folder)
    (folder / "b").write_text("2")
    assert key_of_file(runtime, folder) != before


def test_files_in_a_list_are_keyed_by_content_too(runtime: Runtime, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    declared = {"p": {"type": "array", "items": {"type": "string", "format": "path"}}}
    loaded = graph(runtime, {"a": n("t.read_all@1", paths=r("inputs.p"))}, declared, o="a")
    given = [str(tmp_path / name) for name in "ab"]
    before = loaded.plan(p=given)
    assert [f.path for f in next(iter(before.steps.values())).inputs["paths"]] == given
    (tmp_path / "b").write_text("changed")
    assert loaded.plan(p=given).outputs != before.outputs


@pytest.mark.parametrize("declared", [{"type": "string"}, {"type": "string", "format": "path"}])
def test_a_file_parameter_may_feed_a_source(runtime: Runtime, tmp_path: Path, declared: dict[str, Any]) -> None:
    (tmp_path / "w").write_text("w")
    loaded = graph(runtime, {"a": n("t.weights@1", source=r("inputs.p"))}, {"p": declared}, o="a")
    (step,) = loaded.plan(p=str(tmp_path / "w")).steps.values()
    found = step.inputs["source"]
    assert isinstance(found, FileRef)
    assert (found.kind, found.path) == ("source", str(tmp_path / "w"))


def test_a_missing_file_is_a_problem_at_its_input(runtime: Runtime) -> None:
    loaded = graph(runtime, {"a": n("t.read@1", path=r("inputs.p"))}, {"p": {"type": "string"}}, o="a")
    with pytest.raises(GraphError, match=r"#/nodes/a/inputs/path: there is no file '/no/such'"):
        loaded.plan(p="/no/such")
    declared = {"p": {"type": "string", "format": "image"}}
    loaded = graph(runtime, {"a": n("t.read@1", path=r("inputs.p"))}, declared, o="a")
    with pytest.raises(GraphError, match=r"#/inputs/p: there is no file '/no/such'"):
        loaded.plan(p="/no/such")


def test_a_file_that_cannot_be_digested_is_a_problem_at_its_input(runtime: Runtime, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GraphError, match=r"#/nodes/a/inputs/path: .* is not a regular file"):
        key_of_file(runtime, tmp_path / "pipe")


PATH_INPUTS = [{"type": "string"}, {"type": "string", "format": "path"}]


@pytest.mark.parametrize("declared", PATH_INPUTS)
def test_the_callers_paths_are_trusted_through_subgraphs_and_maps(
    runtime: Runtime, tmp_path: Path, declared: dict[str, Any]
) -> None:
    (tmp_path / "far").write_text("far")
    far = str(tmp_path / "far")
    inside = {"f": n("t.read@1", path=r("inputs.p"))}
    saved(tmp_path / "g", "in.json", inside, {"p": declared}, o="f")
    mapped = n("flow.map@1", graph="graph:in.json", over={"p": r("inputs.all")})
    nodes = {"s": n("graph:in.json", p=r("inputs.p")), "m": mapped}
    inputs = {"p": declared, "all": {"type": "array", "items": declared}}
    top = saved(tmp_path / "g", "top.json", nodes, inputs, a="s", b="m")
    assert len(load(top, runtime=runtime).plan(p=far, all=[far]).steps) == 1


@pytest.mark.parametrize("declared", PATH_INPUTS)
@pytest.mark.parametrize("where", ["default", "literal", "subgraph", "subgraph_default", "map"])
def test_a_path_written_in_a_graph_is_not_trusted_however_it_travels(
    runtime: Runtime, tmp_path: Path, declared: dict[str, Any], where: str
) -> None:
    (tmp_path / "far").write_text("far")
    far = str(tmp_path / "far")
    inside = {"f": n("t.read@1", path=r("inputs.p"))}
    inner = {**declared, "default": far} if where == "subgraph_default" else declared
    saved(tmp_path / "g", "in.json", inside, {"p": inner}, o="f")
    nodes = {
        "default": {"f": n("t.read@1", path=r("inputs.p"))},
        "literal": {"f": n("t.read@1", path=far)},
        "subgraph": {"f": n("graph:in.json", p=far)},
        "subgraph_default": {"f": n("graph:in.json")},
        "map": {"f": n("flow.map@1", graph="graph:in.json", over={"p": [far]})},
    }[where]
    inputs = {"p": {**declared, "default": far}} if where == "default" else {}
    top = saved(tmp_path / "g", "top.json", nodes, inputs, o="f")
    with pytest.raises(GraphError, match="leaves the folder"):
        load(top, runtime=runtime).plan()
    assert load(top, runtime=runtime, allow=(tmp_path,)).plan().steps


# --- forms ---


def test_a_switch_plans_only_the_case_that_is_taken(runtime: Runtime) -> None:
    nodes = {
        "a": n("t.num@1", value=1),
        "b": n("t.add@1", a=r("deep"), b=2),
        "deep": n("t.num@1", value=7),
        "s": n("flow.switch@1", on=r("inputs.mode"), cases={"fast": r("a"), "3": r("b")}, default=5),
        "o": n("t.num@1", value=r("s")),
    }
    loaded = graph(runtime, nodes, {"mode": {"type": "string", "default": "fast"}}, o="o")
    assert list(keys(loaded.plan())) == ["a", "o"]
    assert list(keys(loaded.plan(mode="3"))) == ["deep", "b", "o"]
    assert list(keys(loaded.plan(mode="else"))) == ["o"]


def test_a_switch_may_choose_by_any_scalar(runtime: Runtime) -> None:
    nodes = {"s": n("flow.switch@1", on=r("inputs.x"), cases={"3": "three", "true": "yes", "null": "none"})}
    for kind, value, wanted in (("integer", 3, "three"), ("boolean", True, "yes")):
        loaded = graph(runtime, nodes, {"x": {"type": kind}}, o="s")
        assert loaded.plan(x=value).outputs == {"o": wanted}
    loaded = graph(runtime, nodes, {"x": {"type": "string", "default": None}}, o="s")
    assert loaded.plan().outputs == {"o": "none"}
    with pytest.raises(GraphError, match="no such case, and no default; wanted 3, true, null, got x"):
        loaded.plan(x="x")


def test_a_switch_on_a_computed_value_is_refused_also_behind_a_subgraph(runtime: Runtime, tmp_path: Path) -> None:
    saved(tmp_path, "in.json", {"a": n("t.num@1")}, None, o="a")
    nodes = {"i": n("graph:in.json"), "s": n("flow.switch@1", on=r("i"), cases={"1": 1})}
    top = saved(tmp_path, "top.json", nodes, None, o="s")
    with pytest.raises(GraphError, match="must be known when planning"):
        load(top, runtime=runtime).plan()


def test_a_wrong_value_out_of_a_switch_is_found_when_planning(runtime: Runtime) -> None:
    nodes = {"s": n("flow.switch@1", on="a", cases={"a": "word"}), "x": n("t.num@1", value=r("s"))}
    with pytest.raises(GraphError, match=r'#/nodes/x/inputs/value: input should be a valid integer; got "word"'):
        graph(runtime, nodes, None, o="x").plan()


def test_a_map_runs_a_graph_per_item_and_shares_what_is_common(runtime: Runtime, tmp_path: Path) -> None:
    inside = {
        "common": n("t.num@1", value=r("inputs.base")),
        "one": n("t.add@1", a=r("common"), b=r("inputs.x")),
    }
    saved(
        tmp_path, "in.json", inside, {"x": {"type": "integer"}, "base": {"type": "integer", "default": 3}}, o="one"
    )
    nodes = {
        "up": n("t.num@1", value=4),
        "m": n("flow.map@1", graph="graph:in.json", over={"x": [1, 2, r("up")]}, **{"with": {"base": r("up")}}),
        "t": n("t.total@1", values=r("m")),
    }
    top = saved(tmp_path, "top.json", nodes, None, o="t", all="m.o")
    plan = load(top, runtime=runtime).plan()
    assert list(keys(plan)) == ["up", "m[0]/common", "m[0]/one", "m[1]/one", "m[2]/one", "t"]
    assert [o.port for o in plan.outputs["all"]] == ["value"] * 3


def test_a_map_over_no_items_gives_empty_lists(runtime: Runtime, tmp_path: Path) -> None:
    saved(tmp_path, "in.json", {"a": n("t.num@1", value=r("inputs.x"))}, {"x": {"type": "integer"}}, o="a")
    nodes = {
        "m": n("flow.map@1", graph="graph:in.json", over={"x": r("inputs.xs")}),
        "t": n("t.total@1", values=r("m")),
    }
    inputs = {"xs": {"type": "array", "items": {"type": "integer"}, "default": []}}
    top = load(saved(tmp_path, "top.json", nodes, inputs, o="t"), runtime=runtime)
    assert top.run().outputs["o"] == 0
    assert top.run(xs=[1, 2]).outputs["o"] == 3


def test_problems_of_a_maps_items_are_told_at_the_item(runtime: Runtime, tmp_path: Path) -> None:
    declared = {"x": {"type": "integer", "minimum": 0}, "y": {"type": "integer", "minimum": 0}}
    saved(tmp_path, "in.json", {"a": n("t.add@1", a=r("inputs.x"), b=r("inputs.y"))}, declared, o="a")
    lists = {"type": "array", "items": {"type": "integer"}}
    mapped = n("flow.map@1", graph="graph:in.json", over={"x": r("inputs.xs")}, **{"with": {"y": r("inputs.y")}})
    top = saved(tmp_path, "top.json", {"m": mapped}, {"xs": lists, "y": {"type": "integer"}}, o="m")
    with pytest.raises(GraphError) as caught:
        load(top, runtime=runtime).plan(xs=[1, -1, 2, -5], y=-3)
    assert [p.pointer for p in caught.value.problems] == [
        "/nodes/m/inputs/with/y", "/nodes/m/inputs/over/x/1", "/nodes/m/inputs/over/x/3",
    ]  # fmt: skip
    assert all("greater than or equal to 0" in p.message and p.file == str(top) for p in caught.value.problems)


def test_lists_of_different_length_are_found_when_they_come_through_links(
    runtime: Runtime, tmp_path: Path
) -> None:
    inputs = {"x": {"type": "integer"}, "y": {"type": "integer"}}
    saved(tmp_path, "in.json", {"a": n("t.add@1", a=r("inputs.x"), b=r("inputs.y"))}, inputs, o="a")
    mapped = n("flow.map@1", graph="graph:in.json", over={"x": r("inputs.xs"), "y": [1, 2]})
    top = saved(tmp_path, "top.json", {"m": mapped}, {"xs": {"type": "array"}}, o="m")
    with pytest.raises(GraphError, match=r"#/nodes/m/inputs/over: the lists differ in length; got x: 1, y: 2"):
        load(top, runtime=runtime).plan(xs=[1])


def test_a_subgraph_is_dissolved_and_its_values_are_checked_again(runtime: Runtime, tmp_path: Path) -> None:
    inside = {"a": n("t.scale@1", value=r("inputs.x")), "b": n("t.scale@1", value=r("a"))}
    saved(tmp_path, "in.json", inside, {"x": {"type": "number", "maximum": 5, "default": 1}}, o="b")
    nodes = {"s": n("graph:in.json", x=r("inputs.x")), "d": n("graph:in.json"), "e": n("graph:in.json", x=1)}
    top = load(saved(tmp_path, "top.json", nodes, {"x": {"type": "number"}}, o="s", p="d", q="e"), runtime=runtime)
    plan = top.plan(x=1)
    assert list(keys(plan)) == ["s/a", "s/b"]
    assert plan.outputs["o"] == plan.outputs["p"] == plan.outputs["q"]
    with pytest.raises(GraphError, match=r"#/nodes/s/inputs/x: input should be less than or equal to 5; got 6"):
        top.plan(x=6)


def test_outputs_may_be_inputs_and_whole_subgraph_outputs(runtime: Runtime, tmp_path: Path) -> None:
    saved(tmp_path, "in.json", {"a": n("t.num@1")}, {"x": {"type": "integer"}}, o="a", echo="inputs.x")
    nodes = {"s": n("graph:in.json", x=4), "p": n("t.split@1", value=r("s.o"))}
    plan = load(saved(tmp_path, "top.json", nodes, None, a="s.echo", b="p.high"), runtime=runtime).plan()
    assert plan.outputs["a"] == 4
    assert isinstance(plan.outputs["b"], StepOutput)
    assert plan.outputs["b"].port == "high"


# --- size ---


def test_a_chain_of_10_000_nodes_is_planned_without_recursion(runtime: Runtime) -> None:
    nodes: dict[str, Any] = {"n0": n("t.num@1")}
    nodes |= {f"n{i}": n("t.add@1", a=r(f"n{i - 1}")) for i in range(1, 10_000)}
    loaded = graph(runtime, nodes, None, o="n9999")
    started = time.process_time()
    assert len(loaded.plan().steps) == 10_000
    assert time.process_time() - started < 3


def test_a_chain_of_1_000_switches_is_planned_without_recursion(runtime: Runtime) -> None:
    nodes: dict[str, Any] = {"n0": n("t.num@1")}
    nodes |= {f"n{i}": n("flow.switch@1", on="a", cases={"a": r(f"n{i - 1}")}) for i in range(1, 1000)}
    assert len(graph(runtime, nodes, None, o="n999").plan().steps) == 1


def test_a_map_over_10_000_items_is_planned_in_seconds(runtime: Runtime, tmp_path: Path) -> None:
    declared = {"x": {"type": "integer", "minimum": 0}, "y": {"type": "number", "default": 1}}
    saved(tmp_path, "in.json", {"a": n("t.add@1", a=r("inputs.x"))}, declared, o="a")
    mapped = n("flow.map@1", graph="graph:in.json", over={"x": r("inputs.xs")})
    top = saved(tmp_path, "top.json", {"m": mapped}, {"xs": {"type": "array"}}, o="m")
    loaded = load(top, runtime=runtime)
    started = time.process_time()
    assert len(loaded.plan(xs=list(range(10_000))).steps) == 10_000
    assert time.process_time() - started < 4


def test_a_graph_that_unrolls_without_end_is_stopped(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mezzotint.planner.MAX_STEPS", 1000)
    saved(tmp_path, "g0.json", {"a": n("t.num@1")}, None, o="a")
    for i in range(1, 12):
        saved(tmp_path, f"g{i}.json", {x: n(f"graph:g{i - 1}.json") for x in "ab"}, None, o="a.o", p="b.o")
    with pytest.raises(UserError, match="unrolls to more than 1,000 nodes"):
        load(tmp_path / "g11.json", runtime=runtime).plan()
