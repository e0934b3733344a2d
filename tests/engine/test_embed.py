"""The graph inside a picture: the same graph and inputs come out, and running it gives the same bytes."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest

from mezzotint.api import LoadedGraph, load
from mezzotint.embed import embed, read_embedded, read_picture
from mezzotint.errors import GraphError, UserError
from mezzotint.hookspecs import hookimpl
from mezzotint.nodes import node
from mezzotint.runner import RunResult, run_graph
from mezzotint.runtime import Runtime
from mezzotint.values import Port


class Grey(Port):
    """A grey picture of one pixel."""

    def __init__(self, grey: int) -> None:
        self.__dict__["grey"] = grey


def write(value: Grey, info: Any) -> list[bytes]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    head = pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes([0, value.grey]))
    return [b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")]


@hookimpl
def register_ports(register: Any) -> None:
    register(Grey, suffix="png", media_type="image/png", writer=write)


@node("t.grey")
def grey(*, value: int = 0, scale: float = 1) -> Grey:
    return Grey(int(value * scale))


@node("t.read")
def read(*, path: Path) -> Grey:
    return Grey(len(path.read_bytes()))


@pytest.fixture
def runtime(kit: SimpleNamespace) -> Runtime:
    found: Runtime = kit.runtime_of(kit.registry_of(grey, read, register_ports=register_ports))
    return found


def n(use: str, **inputs: Any) -> dict[str, Any]:
    return {"use": use, "inputs": inputs}


def r(ref: str) -> dict[str, str]:
    return {"ref": ref}


def saved(path: Path, nodes: dict[str, Any], inputs: dict[str, Any], **outputs: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    links = {k: r(v) for k, v in outputs.items()}
    doc = {"format": 1, "name": path.stem, "inputs": inputs, "nodes": nodes, "outputs": links, "ui": {"zoom": 2}}
    path.write_text(json.dumps(doc))
    return path


def go(loaded: LoadedGraph, out: Path, **inputs: Any) -> RunResult:
    return run_graph(loaded.graph, inputs, loaded.runtime, out=out)


NUMBERS = {"v": {"type": "integer", "default": 1}, "s": {"type": "number", "default": 2}}


@pytest.fixture
def composed(tmp_path: Path) -> Path:
    """A graph with a subgraph, one inside that, and a map."""
    source = tmp_path / "source"
    saved(
        source / "lib" / "inner.json", {"g": n("t.grey@1", value=r("inputs.v"))}, {"v": {"type": "integer"}}, o="g"
    )
    saved(
        source / "lib" / "outer.json",
        {"i": n("graph:inner.json", v=r("inputs.v"))},
        {"v": {"type": "integer"}},
        o="i",
    )
    mapped = n("flow.map@1", graph="graph:lib/inner.json", over={"v": [4, r("inputs.v")]})
    plain = {**n("t.grey@1", value=r("inputs.v"), scale=r("inputs.s")), "ui": {"x": 1}}
    nodes = {"a": n("graph:lib/outer.json", v=r("inputs.v")), "m": mapped, "p": plain}
    return saved(source / "top.json", nodes, NUMBERS, one="a", many="m", plain="p")


def test_a_picture_makes_itself_again_byte_by_byte_without_its_graphs_files(
    runtime: Runtime, kit: SimpleNamespace, composed: Path, tmp_path: Path
) -> None:
    first = go(load(composed, runtime=runtime), tmp_path / "a", v=9)
    for path in composed.parent.rglob("*.json"):
        path.unlink()
    for file in first.files:
        fresh = kit.runtime_of(runtime.registry)
        again = go(load(file.path, runtime=fresh), tmp_path / "b")
        assert again.steps_run > 0
        assert [(f.path.name, f.sha256) for f in again.files] == [(f.path.name, f.sha256) for f in first.files]
        assert all(
            a.path.read_bytes() == b.path.read_bytes() for a, b in zip(again.files, first.files, strict=True)
        )


def test_a_picture_of_a_picture_carries_the_same_text(runtime: Runtime, composed: Path, tmp_path: Path) -> None:
    first = go(load(composed, runtime=runtime), tmp_path / "a", v=9)
    loaded = load(first.files[0].path, runtime=runtime)
    assert embed(loaded.graph, loaded.plan().inputs) == embed(first.plan.graph, first.plan.inputs)


def test_the_inputs_that_it_was_made_with_come_along_and_can_be_changed(
    runtime: Runtime, composed: Path, tmp_path: Path
) -> None:
    (first, *_) = go(load(composed, runtime=runtime), tmp_path / "a", v=9).files
    loaded = load(first.path, runtime=runtime)
    assert loaded.plan().inputs == {"v": 9, "s": 2.0}
    assert loaded.plan(v=3).inputs == {"v": 3, "s": 2.0}
    found = read_picture(first.path)
    assert found.inputs == {"v": 9, "s": 2.0}
    assert found.doc.ui is None
    assert found.doc.nodes["p"].ui is None
    assert len(found.graphs) == 2


def test_an_omitted_input_and_its_default_written_out_give_the_same_bytes(
    runtime: Runtime, composed: Path, tmp_path: Path
) -> None:
    one = go(load(composed, runtime=runtime), tmp_path / "a")
    two = go(load(composed, runtime=runtime), tmp_path / "b", v=1, s=2)
    assert [f.sha256 for f in one.files] == [f.sha256 for f in two.files]
    assert two.steps_run == 0


def test_moving_nodes_in_an_editor_changes_no_bytes(runtime: Runtime, composed: Path, tmp_path: Path) -> None:
    one = go(load(composed, runtime=runtime), tmp_path / "a")
    doc = json.loads(composed.read_text())
    doc["ui"], doc["nodes"]["p"]["ui"] = {"zoom": 5}, {"x": 99}
    composed.write_text(json.dumps(doc))
    two = go(load(composed, runtime=runtime), tmp_path / "b")
    assert [f.sha256 for f in one.files] == [f.sha256 for f in two.files]


def test_paths_that_come_along_in_a_picture_are_not_trusted(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "far").write_text("12345")
    for declared in ({"type": "string"}, {"type": "string", "format": "path"}):
        top = saved(tmp_path / "s" / "top.json", {"a": n("t.read@1", path=r("inputs.p"))}, {"p": declared}, o="a")
        (file,) = go(load(top, runtime=runtime), tmp_path / "out", p=str(tmp_path / "far")).files
        with pytest.raises(GraphError, match="leaves the folder"):
            load(file.path, runtime=runtime).plan()
        assert load(file.path, runtime=runtime, allow=(tmp_path,)).plan().steps
        assert load(file.path, runtime=runtime).plan(p=str(tmp_path / "far")).steps


def test_a_subgraph_that_is_used_twice_at_each_of_25_levels_is_embedded_once(
    kit: SimpleNamespace, runtime: Runtime, tmp_path: Path
) -> None:
    saved(tmp_path / "g0.json", {"a": n("t.grey@1")}, {}, o="a")
    for i in range(1, 25):
        saved(tmp_path / f"g{i}.json", {x: n(f"graph:g{i - 1}.json") for x in "ab"}, {}, o="a.o")
    graph = load(tmp_path / "g24.json", runtime=runtime).graph
    text = embed(graph, {})
    assert len(read_embedded(text, "x").graphs) == 24


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "no graph that this version can read"),
        ('{"format": 2, "graph": {}}', "no graph that this version can read"),
        ('{"format": 1}', "no graph that this version can read"),
        ('{"format": 1, "graph": {"format": 1, "nodes": {}}, "graphs": []}', "damaged"),
        ('{"format": 1, "graph": {"format": 1, "nodes": {}}, "inputs": 3}', "damaged"),
        ('{"format": 1, "graph": []}', "a graph is a JSON object"),
        ('{"format": 1, "graph": {"nodes": {}}}', "'format' is missing"),
    ],
)
def test_a_text_that_is_no_record_of_ours_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_embedded(text, "p.png")


def embedded(runtime: Runtime, tmp_path: Path, record: dict[str, Any]) -> LoadedGraph:
    from mezzotint.png import add_text

    path = tmp_path / "made.png"
    path.write_bytes(add_text(write(Grey(1), None)[0], "mezzotint", json.dumps(record)))
    return load(path, runtime=runtime)


def test_a_hostile_picture_gets_messages_and_nothing_else(runtime: Runtime, tmp_path: Path) -> None:
    graph: dict[str, Any] = {"format": 1, "nodes": {"a": n("graph:embedded:x")}, "outputs": {"o": r("a")}}
    record = {"format": 1, "graph": graph, "inputs": {}}
    with pytest.raises(GraphError, match="there is no file 'embedded:x'"):
        embedded(runtime, tmp_path, record)
    with pytest.raises(GraphError, match="a graph cannot contain itself"):
        embedded(runtime, tmp_path, {**record, "graphs": {"embedded:x": graph}})
    with pytest.raises(GraphError, match="a graph is a JSON object"):
        embedded(runtime, tmp_path, {**record, "graphs": {"embedded:x": 5}})
    outside = {"format": 1, "nodes": {"a": n("t.read@1", path="../x")}, "outputs": {"o": r("a")}}
    with pytest.raises(GraphError, match="leaves the folder"):
        embedded(runtime, tmp_path, {**record, "graphs": {"embedded:x": outside}})
    simple = {"format": 1, "inputs": NUMBERS, "nodes": {"a": n("t.grey@1")}, "outputs": {"o": r("a")}}
    with pytest.raises(GraphError, match=r"valid integer"):
        embedded(runtime, tmp_path, {"format": 1, "graph": simple, "inputs": {"v": "x"}}).plan()
    with pytest.raises(GraphError, match="no input 'zz'"):
        embedded(runtime, tmp_path, {"format": 1, "graph": simple, "inputs": {"zz": 1}}).plan()


def test_a_picture_without_a_graph_says_so(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(write(Grey(1), None)[0])
    with pytest.raises(UserError, match="there is no graph inside this picture"):
        load(tmp_path / "p.png", runtime=runtime)
