"""Validation: every problem of a graph in one pass, each at its place. The wrong graphs are in graphs_invalid/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import Field

from mezzotint.document import parse_doc
from mezzotint.errors import GraphError, Problem
from mezzotint.graph import Graph
from mezzotint.hookspecs import hookimpl
from mezzotint.nodes import node
from mezzotint.ports import Image, Mask
from mezzotint.reading import read_file
from mezzotint.registry import Registry
from mezzotint.validate import validate

INVALID = Path(__file__).parent / "graphs_invalid"


class Two(NamedTuple):
    image: Image
    mask: Mask


@node("t.picture")
def picture() -> Image:
    raise NotImplementedError


@node("t.two")
def two() -> Two:
    raise NotImplementedError


@node("t.number")
def number(*, value: int = 0) -> int:
    return value


@node("t.any")
def anything(*, value: Any) -> Any:
    return value


@node("t.blend")
def blend(
    images: list[Image],
    mask: Mask | None = None,
    *,
    amount: Annotated[float, Field(ge=0, le=1)] = 0.5,
    count: int = 1,
    mode: Literal["fast", "exact"] = "fast",
    size: tuple[int, int] = (1, 1),
    table: dict[str, float] = {},  # noqa: B006
) -> Image:
    raise NotImplementedError


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda inputs: {(new if k == old else k): v for k, v in inputs.items()}


@node("t.grown", version=3, upgrades={2: renamed("amt", "amount")})
def grown(*, amount: float = 0.0, image: Image | None = None) -> float:
    return amount


def _fail(inputs: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("no such luck")


@node("t.broken", version=3, upgrades={1: _fail, 2: lambda inputs: None})  # type: ignore[dict-item,return-value]
def broken() -> float:
    return 0.0


@pytest.fixture
def registry(kit: SimpleNamespace) -> Registry:
    found: Registry = kit.registry_of(picture, two, number, anything, blend, grown, broken)
    return found


def check(registry: Registry, nodes: dict[str, Any], **more: Any) -> Graph:
    return validate(parse_doc({"format": 1, "nodes": nodes, **more}), registry)


def problems(registry: Registry, nodes: dict[str, Any], **more: Any) -> list[tuple[str, str]]:
    with pytest.raises(GraphError) as caught:
        check(registry, nodes, **more)
    return [(p.pointer, p.message) for p in caught.value.problems if p.severity == "error"]


def described(problem: Problem, expected: dict[str, str]) -> dict[str, str]:
    """The fields of a problem that count; a message may be expected by its beginning, files by their end."""
    fields = {"pointer": problem.pointer, "message": problem.message.replace(f"{INVALID}{os.sep}", "")}
    fields |= {k: v for k in ("got", "wanted", "suggestion") if (v := getattr(problem, k))}
    if "file" in expected:
        fields["file"] = str(Path(problem.file).relative_to(INVALID))
    if "leaves the folder" in fields["message"]:
        fields["message"] = fields["message"].partition(" the folder ")[0] + " the folder"
    if fields["message"].startswith("unknown type"):
        fields.pop("wanted")
        fields.pop("suggestion", None)
    return fields


@pytest.mark.parametrize("name", sorted(p.name for p in INVALID.glob("*.json")))
def test_every_problem_is_reported_at_once_with_its_place(name: str, registry: Registry) -> None:
    found = read_file(INVALID / name)
    expected = found.doc.ui["expected"]
    with pytest.raises(GraphError) as caught:
        found.validate(registry)
    errors = [p for p in caught.value.problems if p.severity == "error"]
    by_place = {e["pointer"]: e for e in expected}
    got = [described(p, by_place.get(p.pointer, {})) for p in errors]

    def key(problem: dict[str, str]) -> str:
        return json.dumps(problem, sort_keys=True)

    assert sorted(got, key=key) == sorted(expected, key=key)
    assert all(p.code for p in errors)


def test_problems_read_the_same_in_every_process(registry: Registry) -> None:
    program = (
        "import sys, mezzotint.reading as r\nfrom mezzotint.plugins import load_registry\n"
        "from mezzotint.errors import GraphError\nfrom pathlib import Path\n"
        "registry = load_registry(installed=False, namespaces=(), files=[sys.argv[2]])\n"
        "for p in sorted(Path(sys.argv[1]).glob('*.json')):\n"
        "    try: r.read_file(p).validate(registry)\n"
        "    except GraphError as e: print(e)\n"
    )
    shown = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", program, str(INVALID), __file__]
        env = {**os.environ, "PYTHONHASHSEED": seed}
        shown.append(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    assert shown[0] == shown[1]
    assert shown[0].count("\n") > 80


def test_a_sound_graph_has_types_and_no_warnings(registry: Registry) -> None:
    graph = check(
        registry,
        {
            "a": {"use": "t.picture@1"},
            "b": {"use": "t.blend@1", "inputs": {"images": [{"ref": "a"}, {"ref": "a.image"}], "amount": 1}},
            "n": {"use": "t.number@1", "inputs": {"value": {"ref": "inputs.n"}}},
            "c": {"use": "t.blend@1", "inputs": {"images": [], "mask": None, "amount": {"ref": "n"}}},
        },
        inputs={"n": {"type": "integer", "default": 3}},
        outputs={"x": {"ref": "b"}, "y": {"ref": "c"}, "z": {"ref": "inputs.n"}},
    )
    assert not graph.warnings
    assert {k: str(t) for k, t in graph.output_types.items()} == {"x": "Image", "y": "Image", "z": "integer"}
    assert graph.nodes["b"].literals == {"amount": 1.0}
    assert graph.nodes["b"].needs == ("a",)


def test_the_network_has_one_edge_per_link_and_is_frozen(registry: Registry) -> None:
    images = [{"ref": "a"}, {"ref": "a"}]
    graph = check(registry, {"a": {"use": "t.picture@1"}, "b": {"use": "t.blend@1", "inputs": {"images": images}}})
    assert graph.network.number_of_edges("a", "b") == 2
    with pytest.raises(Exception, match=r"[Ff]rozen"):
        graph.network.add_node("c")


def test_nodes_that_lead_to_no_output_are_warned_of(registry: Registry) -> None:
    graph = check(
        registry,
        {"a": {"use": "t.picture@1"}, "b": {"use": "t.blend@1", "inputs": {"images": [{"ref": "a"}]}}},
        outputs={"o": {"ref": "a"}},
    )
    assert [(p.pointer, p.code, p.severity) for p in graph.warnings] == [("/nodes/b", "unused_node", "warning")]


def test_a_graph_without_outputs_is_warned_of(registry: Registry) -> None:
    graph = check(registry, {})
    assert [p.code for p in graph.warnings] == ["no_outputs"]


def test_old_versions_are_upgraded_in_json_terms(registry: Registry) -> None:
    nodes = {
        "p": {"use": "t.picture@1"},
        "a": {"use": "t.grown@2", "inputs": {"amt": 0.5, "image": {"ref": "p"}}},
    }
    graph = check(registry, nodes, outputs={"o": {"ref": "a"}})
    assert graph.nodes["a"].use == "t.grown@3"
    assert graph.nodes["a"].literals == {"amount": 0.5}
    assert graph.nodes["a"].needs == ("p",)
    assert graph.doc.nodes["a"].inputs == {"amt": 0.5, "image": {"ref": "p"}}


def test_an_upgrade_sees_links_as_they_are_written_and_cannot_change_the_document(kit: SimpleNamespace) -> None:
    seen: list[Any] = []

    def upgrade(inputs: dict[str, Any]) -> dict[str, Any]:
        seen.append(json.loads(json.dumps(inputs)))
        inputs["value"]["deep"].append({"ref": "a"})
        return inputs

    @node("t.changed", version=2, upgrades={1: upgrade})
    def changed(*, value: Any) -> Any:
        return value

    nodes = {
        "a": {"use": "t.picture@1"},
        "b": {"use": "t.changed@1", "inputs": {"value": {"deep": [{"ref": "a"}]}}},
    }
    graph = check(kit.registry_of(picture, changed), nodes)
    assert seen == [{"value": {"deep": [{"ref": "a"}]}}]
    assert graph.doc.nodes["b"].inputs == {"value": {"deep": [{"ref": "a"}]}}


def test_two_versions_side_by_side_are_both_used(kit: SimpleNamespace) -> None:
    @node("t.both", version=1)
    def first(*, old: int = 0) -> int:
        return old

    @node("t.both", version=2)
    def second(*, new: int = 0) -> int:
        return new

    nodes = {"a": {"use": "t.both@1", "inputs": {"old": 1}}, "b": {"use": "t.both@2", "inputs": {"new": 1}}}
    graph = check(kit.registry_of(first, second), nodes)
    assert {n.use for n in graph.nodes.values()} == {"t.both@1", "t.both@2"}


# --- subgraphs ---


def write(path: Path, nodes: dict[str, Any], outputs: dict[str, str] | None = None) -> Path:
    links = {name: {"ref": ref} for name, ref in (outputs or {}).items()}
    path.write_text(json.dumps({"format": 1, "nodes": nodes, "outputs": links}))
    return path


def tower(folder: Path, height: int, uses: int = 1) -> Path:
    """Graphs that contain the next one `uses` times; the last one has a picture."""
    write(folder / f"g{height - 1}.json", {"p": {"use": "t.picture@1"}}, {"o": "p"})
    for i in range(height - 1):
        inside = {f"n{k}": {"use": f"graph:g{i + 1}.json"} for k in range(uses)}
        write(folder / f"g{i}.json", inside, {"o": "n0.o"})
    return folder / "g0.json"


def test_32_graphs_may_lie_inside_each_other_and_no_more(registry: Registry, tmp_path: Path) -> None:
    assert read_file(tower(tmp_path, 32)).validate(registry).height == 32
    with pytest.raises(GraphError, match="graphs nested deeper than 32"):
        read_file(tower(tmp_path, 33)).validate(registry)


def test_a_subgraph_that_was_met_higher_up_still_counts_its_depth(registry: Registry, tmp_path: Path) -> None:
    tower(tmp_path, 20)
    for i in range(20):
        inside = {"n": {"use": f"graph:h{i + 1}.json" if i < 19 else "graph:g0.json"}}
        write(tmp_path / f"h{i}.json", inside, {"o": "n.o"})
    top = write(
        tmp_path / "top.json", {"a": {"use": "graph:g0.json"}, "b": {"use": "graph:h0.json"}}, {"o": "a.o"}
    )
    with pytest.raises(GraphError, match="graphs nested deeper than 32"):
        read_file(top).validate(registry)


def test_a_subgraph_used_twice_at_each_of_30_levels_is_validated_once(registry: Registry, tmp_path: Path) -> None:
    started = time.monotonic()
    read_file(tower(tmp_path, 30, uses=2)).validate(registry)
    assert time.monotonic() - started < 10


def test_warnings_of_a_subgraph_are_told_once_with_their_file(registry: Registry, tmp_path: Path) -> None:
    write(tmp_path / "in.json", {"p": {"use": "t.picture@1"}, "q": {"use": "t.picture@1"}}, {"o": "p"})
    top = write(tmp_path / "top.json", {n: {"use": "graph:in.json"} for n in "ab"}, {"a": "a", "b": "b"})
    graph = read_file(top).validate(registry)
    (warning,) = graph.warnings
    assert warning.file == str(tmp_path / "in.json")
    assert warning.message.startswith("node 'q' leads to no output, so it will not run (used at ")


def test_a_subgraph_through_a_link_that_leaves_the_folder_is_refused(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "out.json", {})
    (tmp_path / "in" / "link.json").symlink_to(tmp_path / "out.json")
    top = write(tmp_path / "in" / "top.json", {"a": {"use": "graph:link.json"}})
    with pytest.raises(GraphError, match="leaves the folder"):
        read_file(top).validate(registry)
    read_file(top).validate(registry, allowed=(tmp_path,))


def test_a_subgraph_reads_from_its_own_folder(kit: SimpleNamespace, tmp_path: Path) -> None:
    @node("t.file")
    def file(*, path: Path) -> str:
        return path.read_text()

    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "x.txt").write_text("lib")
    write(tmp_path / "lib" / "in.json", {"f": {"use": "t.file@1", "inputs": {"path": "x.txt"}}}, {"o": "f"})
    top = write(tmp_path / "top.json", {"a": {"use": "graph:lib/in.json"}}, {"o": "a"})
    read_file(top).validate(kit.registry_of(file))
    write(tmp_path / "lib" / "in.json", {"f": {"use": "t.file@1", "inputs": {"path": "../top.json"}}}, {"o": "f"})
    with pytest.raises(GraphError, match="leaves the folder"):
        read_file(top).validate(kit.registry_of(file))


# --- size ---


def chain(length: int) -> dict[str, Any]:
    nodes: dict[str, Any] = {"n0": {"use": "t.any@1", "inputs": {"value": 0}}}
    for i in range(1, length):
        nodes[f"n{i}"] = {"use": "t.any@1", "inputs": {"value": {"ref": f"n{i - 1}"}}}
    return nodes


def test_10_000_nodes_are_validated_in_seconds(registry: Registry) -> None:
    started = time.process_time()
    check(registry, chain(10_000), outputs={"o": {"ref": "n9999"}})
    assert time.process_time() - started < 3


def test_a_cycle_of_10_000_nodes_is_named_in_seconds(registry: Registry) -> None:
    nodes = chain(10_000)
    nodes["n0"]["inputs"]["value"] = {"ref": "n9999"}
    started = time.process_time()
    ((pointer, message),) = problems(registry, nodes)
    assert time.process_time() - started < 5
    assert pointer == "/nodes/n0"
    assert message.startswith("cycle: n0 -> n1 -> n2 -> n3 -> n4 -> n5 -> … -> n9995")


def test_1_000_wrong_nodes_give_1_000_problems(registry: Registry) -> None:
    nodes = {f"n{i}": {"use": "t.number@1", "inputs": {"value": "x"}} for i in range(1000)}
    assert len(problems(registry, nodes)) == 1000


@hookimpl
def register_nodes(register: Callable[..., Any]) -> None:
    """This file is a plugin, too, for other processes."""
    for each in (picture, two, number, anything, blend, grown, broken):
        register(each)
