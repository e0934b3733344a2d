"""Output files: named by content, written whole, one failure never losing the others."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path
from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest

from mezzotint.api import LoadedGraph, load
from mezzotint.document import parse_json
from mezzotint.errors import PluginError, UserError
from mezzotint.hookspecs import hookimpl
from mezzotint.nodes import node
from mezzotint.outputs import OutputInfo
from mezzotint.runner import RunResult, run_graph
from mezzotint.runtime import Runtime
from mezzotint.values import Port


class Dot(Port):
    """Grey pictures of one pixel each. A port of this file, so that no other plugin has a say."""

    greys: tuple[int, ...]

    def __init__(self, *greys: int) -> None:
        self.__dict__["greys"] = greys


class Folder(Port):
    """Several files. files: their texts by path."""

    def __init__(self, files: dict[str, str]) -> None:
        self.__dict__["files"] = files


def png(grey: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    head = pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes([0, grey]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_dots(value: Dot, info: OutputInfo) -> list[bytes]:
    return [png(grey) for grey in value.greys]


def write_folder(value: Folder, info: OutputInfo) -> dict[str, bytes]:
    return {path: text.encode() for path, text in value.files.items()}


@hookimpl
def register_ports(register: Any) -> None:
    register(Dot, suffix="png", media_type="image/png", writer=write_dots)
    register(Folder, suffix="d", media_type="", writer=write_folder)


@node("t.dot")
def dot(*, grey: int = 0, many: int = 1) -> Dot:
    return Dot(*(grey + i for i in range(many)))


@node("t.folder")
def folder(*, files: dict[str, str]) -> Folder:
    return Folder(files)


@node("t.any")
def anything(*, value: Any) -> Any:
    return value


@node("t.odd")
def odd(*, kind: str) -> Any:
    return {
        "nan": [math.nan, {"x": math.inf}],
        "tuple": (1, (2,)),
        "object": {"dot": Dot(1)},
        "nested": [[Dot(1)], []],
    }[kind]


@pytest.fixture
def runtime(kit: SimpleNamespace) -> Runtime:
    found: Runtime = kit.runtime_of(kit.registry_of(dot, folder, anything, odd, register_ports=register_ports))
    return found


def n(use: str, **inputs: Any) -> tuple[str, dict[str, Any]]:
    return use, inputs


def r(ref: str) -> dict[str, str]:
    return {"ref": ref}


def go(loaded: LoadedGraph, out: Path, **options: Any) -> RunResult:
    return run_graph(loaded.graph, options.pop("inputs", {}), loaded.runtime, out=out, **options)


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_the_name_says_graph_output_and_content(kit: SimpleNamespace, runtime: Runtime, tmp_path: Path) -> None:
    loaded = kit.graph_of({"a": n("t.dot@1", grey=r("inputs.g"))}, {"image": "a"}, inputs={
        "g": {"type": "integer", "default": 1}}, runtime=runtime)  # fmt: skip
    (first,) = go(loaded, tmp_path).files
    assert first.path.name.startswith("test-image-")
    assert first.path.suffix == ".png"
    assert go(loaded, tmp_path).files[0].path == first.path
    (other,) = go(loaded, tmp_path, inputs={"g": 2}).files
    assert other.path != first.path
    assert names(tmp_path) == sorted([first.path.name, other.path.name])


def test_several_pictures_are_numbered(kit: SimpleNamespace, runtime: Runtime, tmp_path: Path) -> None:
    nodes = {
        "batch": n("t.dot@1", many=3), "a": n("t.dot@1", grey=7),
        "list": n("t.any@1", value=[r("a"), [r("batch")]]), "none": n("t.any@1", value=[]),
    }  # fmt: skip
    loaded = kit.graph_of(nodes, {"batch": "batch", "list": "list", "none": "none"}, runtime=runtime)
    result = go(loaded, tmp_path)
    by_output: dict[str, list[str]] = {}
    for file in result.files:
        by_output.setdefault(file.output, []).append(file.path.name[-8:])
    assert by_output["batch"] == ["-000.png", "-001.png", "-002.png"]
    assert by_output["list"] == ["-000.png", "-001.png", "-002.png", "-003.png"]
    assert len(by_output["none"]) == 1
    assert len(names(tmp_path)) == 8


def test_scalars_lists_and_objects_are_json(kit: SimpleNamespace, runtime: Runtime, tmp_path: Path) -> None:
    values = {"i": 3, "f": 0.1, "s": "ä\n", "b": True, "l": [1, [2]], "o": {"x": None}}
    nodes = {name: n("t.any@1", value=value) for name, value in values.items()}
    nodes |= {name: n("t.odd@1", kind=name) for name in ("nan", "tuple")}
    result = go(kit.graph_of(nodes, {name: name for name in nodes}, runtime=runtime), tmp_path)
    found = {f.output: parse_json(f.path.read_bytes()) for f in result.files}
    assert found == {**values, "nan": [None, {"x": None}], "tuple": [1, [2]]}


def test_an_output_may_be_an_input(kit: SimpleNamespace, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "f.png").write_bytes(png(1))
    inputs = {"word": {"type": "string", "default": "w"}, "file": {"type": "string", "format": "image"}}
    loaded = kit.graph_of({}, {"a": "inputs.word", "b": "inputs.file"}, inputs=inputs, runtime=runtime)
    given = str(tmp_path / "f.png")
    result = go(loaded, tmp_path / "out", inputs={"file": given})
    assert dict(result.outputs) == {"a": "w", "b": given}
    assert {f.output: json.loads(f.path.read_text()) for f in result.files} == {"a": "w", "b": given}


def test_a_writer_may_make_a_folder_and_cannot_leave_it(
    kit: SimpleNamespace, runtime: Runtime, tmp_path: Path
) -> None:
    nodes = {
        "good": n("t.folder@1", files={"a.txt": "a", "sub/b.txt": "b"}),
        "up": n("t.folder@1", files={"../x": "x"}),
        "root": n("t.folder@1", files={"/tmp/x": "x"}),
    }
    loaded = kit.graph_of(nodes, {name: name for name in nodes}, runtime=runtime)
    for _ in range(2):
        result = go(loaded, tmp_path / "out")
        assert {f.path.relative_to(tmp_path / "out").parts[1:] for f in result.files} == {
            ("a.txt",),
            ("sub", "b.txt"),
        }
        assert set(result.failures) == {"up", "root"}


@pytest.mark.parametrize("name", ["../../etc/x", "/abs", "a/b\0c", "..", ".hidden", "bäume & mehr", ""])
def test_a_graphs_name_cannot_lead_out_of_the_folder(runtime: Runtime, tmp_path: Path, name: str) -> None:
    doc = {
        "format": 1, "name": name, "nodes": {"a": {"use": "t.any@1", "inputs": {"value": 1}}},
        "outputs": {"o": r("a")},
    }  # fmt: skip
    result = load(doc, runtime=runtime).run(out=tmp_path / "deep" / "out")
    assert result.files[0].path.parent == tmp_path / "deep" / "out"
    assert len(names(tmp_path)) == 1
    assert not names(tmp_path)[0].rpartition("/")[2].startswith(".")


def test_an_output_that_nobody_can_write_is_one_failure(
    kit: SimpleNamespace, runtime: Runtime, tmp_path: Path, log: Any
) -> None:
    nodes = {"a": n("t.odd@1", kind="object"), "b": n("t.dot@1"), "c": n("t.odd@1", kind="nested")}
    loaded = kit.graph_of(nodes, {"bad": "a", "good": "b", "list": "c"}, runtime=runtime)
    result = go(loaded, tmp_path, on_event=log)
    assert result.status == "failed"
    assert isinstance(result.failures["bad"].cause, PluginError)
    assert {f.output for f in result.files} == {"good", "list"}
    assert [e.node for e in log.of("node_failed")] == ["bad"]
    assert set(result.outputs) == {"bad", "good", "list"}


@pytest.mark.parametrize("returned", [b"bytes", None, ["text"], [b"x", 1]])
def test_a_writer_that_returns_something_else_is_named(
    kit: SimpleNamespace, tmp_path: Path, returned: Any
) -> None:
    @hookimpl
    def register_ports(register: Any) -> None:
        register(Dot, suffix="png", media_type="image/png", writer=lambda value, info: returned)

    loaded = kit.graph_of(
        {"a": n("t.dot@1")},
        {"o": "a"},
        runtime=kit.runtime_of(kit.registry_of(dot, register_ports=register_ports)),
    )
    result = go(loaded, tmp_path)
    assert "the writer of Dot returned" in str(result.failures["o"])
    assert not names(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_clear_failure(
    kit: SimpleNamespace, runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    loaded = kit.graph_of({"a": n("t.dot@1"), "b": n("t.any@1", value=1)}, {"x": "a", "y": "b"}, runtime=runtime)
    for _ in range(2):
        result = go(loaded, tmp_path / "file" / "out")
        assert set(result.failures) == {"x", "y"}
        assert isinstance(result.failures["x"].cause, UserError)
        assert "cannot make the folder" in str(result.failures["x"])
        assert result.outputs["y"] == 1


def test_one_output_that_cannot_be_placed_leaves_the_others(
    kit: SimpleNamespace, runtime: Runtime, tmp_path: Path
) -> None:
    loaded = kit.graph_of({"a": n("t.dot@1"), "b": n("t.any@1", value=1)}, {"x": "a", "y": "b"}, runtime=runtime)
    (x,) = (f.path for f in go(loaded, tmp_path).files if f.output == "x")
    x.unlink()
    x.mkdir()  # in its way, and not empty
    (x / "keep").touch()
    result = go(loaded, tmp_path)
    assert set(result.failures) == {"x"}
    assert [f.output for f in result.files] == ["y"]


def test_two_outputs_of_one_value_are_both_copied_from_the_store(
    kit: SimpleNamespace, runtime: Runtime, tmp_path: Path, log: Any
) -> None:
    loaded = kit.graph_of({"a": n("t.dot@1")}, {"x": "a", "y": "a"}, runtime=runtime)
    go(loaded, tmp_path)
    go(loaded, tmp_path, on_event=log)
    assert [e.cached for e in log.of("output_written")] == [True, True]


def test_a_kill_while_writing_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom mezzotint import atomic, outputs\n"
        "real = os.fsync\n"
        "os.fsync = lambda fd: os._exit(9)\n"
        "outputs._place(Path(sys.argv[1]), b'x' * 1000)\n"
    )
    target = tmp_path / "out" / "a.png"
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert done.returncode == 9
    assert not target.exists()
    assert all(name.startswith("out/.") for name in names(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(kit: SimpleNamespace, runtime: Runtime, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    result = go(kit.graph_of({"a": n("t.dot@1")}, {"x": "a"}, runtime=runtime), tmp_path)
    assert "Permission denied" in str(result.failures["x"])
