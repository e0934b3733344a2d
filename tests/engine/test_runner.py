"""Whole runs: what is found again, what is made again, and what kills, damage and neighbours cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mezzotint.api import LoadedGraph
from mezzotint.context import Context
from mezzotint.nodes import node
from mezzotint.ports import Weights
from mezzotint.runner import RunResult, run_graph
from mezzotint.runtime import Runtime
from mezzotint.store import Store

STEPPING = Path(__file__).with_name("stepping.py")
GB = 10**9


@node("t.num")
def num(*, value: int = 0) -> int:
    return value


@node("t.add")
def add(*, a: int, b: int = 0) -> int:
    return a + b


@node("t.big")
def big(*, value: int = 0) -> Weights:
    return Weights({"w": torch.full((50_000,), float(value))})


@node("t.sum")
def total(weights: Weights, *, plus: int = 0) -> float:
    return float(weights.tensors["w"].sum()) + plus


def n(use: str, **inputs: Any) -> tuple[str, dict[str, Any]]:
    return use, inputs


def r(ref: str) -> dict[str, str]:
    return {"ref": ref}


def go(loaded: LoadedGraph, log: Any = None, **options: Any) -> RunResult:
    inputs = options.pop("inputs", {})
    return run_graph(loaded.graph, inputs, loaded.runtime, on_event=log, **options)


@pytest.fixture
def runtime(kit: SimpleNamespace, store: Store) -> Runtime:
    found: Runtime = kit.runtime_of(kit.registry_of(num, add, big, total), store)
    return found


XY = {"x": {"type": "integer", "default": 1}, "y": {"type": "integer", "default": 2}}


def branches(kit: SimpleNamespace, runtime: Runtime) -> LoadedGraph:
    nodes = {
        "left": n("t.num@1", value=r("inputs.x")),
        "right": n("t.num@1", value=r("inputs.y")),
        "sum": n("t.add@1", a=r("left"), b=r("right")),
    }
    found: LoadedGraph = kit.graph_of(nodes, {"o": "sum", "l": "left"}, inputs=XY, runtime=runtime)
    return found


def test_a_second_run_runs_nothing_and_writes_its_files_again(
    kit: SimpleNamespace, runtime: Runtime, log: Any, tmp_path: Path
) -> None:
    loaded = branches(kit, runtime)
    first = go(loaded, out=tmp_path / "a")
    second = go(loaded, log, out=tmp_path / "b")
    assert (first.steps_run, first.steps_cached) == (3, 0)
    assert (second.steps_run, second.steps_cached) == (0, 3)
    assert [(f.path.name, f.sha256) for f in first.files] == [(f.path.name, f.sha256) for f in second.files]
    assert all(f.path.read_bytes() for f in second.files)
    assert log.kinds() == ["run_started", *["cache_hit"] * 3, *["output_written"] * 2, "run_finished"]
    assert all(e.cached for e in log.of("output_written"))
    assert dict(second.outputs) == {"o": 3, "l": 1}


def test_a_changed_input_runs_only_what_depends_on_it(kit: SimpleNamespace, runtime: Runtime, log: Any) -> None:
    loaded = branches(kit, runtime)
    go(loaded)
    result = go(loaded, log, inputs={"y": 5})
    assert [e.node for e in log.of("node_started")] == ["right", "sum"]
    assert [e.node for e in log.of("cache_hit")] == ["left"]
    assert dict(result.outputs) == {"o": 6, "l": 1}


def test_only_wanted_outputs_are_made(kit: SimpleNamespace, runtime: Runtime, tmp_path: Path) -> None:
    result = go(branches(kit, runtime), wanted=["l"], out=tmp_path)
    assert dict(result.outputs) == {"l": 1}
    assert (result.steps_run, len(result.files)) == (1, 1)


def test_what_an_uncacheable_node_leads_to_is_made_anew_and_not_kept(kit: SimpleNamespace, store: Store) -> None:
    calls = []

    @node("t.clock", cacheable=False)
    def clock() -> int:
        calls.append(1)
        return len(calls)

    runtime = kit.runtime_of(kit.registry_of(clock, add), store)
    loaded = kit.graph_of({"c": n("t.clock@1"), "a": n("t.add@1", a=r("c"))}, {"o": "a"}, runtime=runtime)
    assert [go(loaded).outputs["o"] for _ in range(3)] == [1, 2, 3]
    assert not store.ls()


def weights(kit: SimpleNamespace, runtime: Runtime) -> LoadedGraph:
    nodes = {"w": n("t.big@1", value=3), "s": n("t.sum@1", weights=r("w"), plus=r("inputs.plus"))}
    inputs = {"plus": {"type": "integer", "default": 0}}
    found: LoadedGraph = kit.graph_of(nodes, {"o": "s", "w": "w"}, inputs=inputs, runtime=runtime)
    return found


def flip_every_blob(store: Store) -> None:
    store.flush()
    for path in (store.folder / "blobs").glob("*/*"):
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)


@pytest.mark.parametrize("what", ["inner", "output"])
def test_a_damaged_entry_is_made_again(
    kit: SimpleNamespace, runtime: Runtime, store: Store, tmp_path: Path, what: str
) -> None:
    go(weights(kit, runtime))
    flip_every_blob(store)
    with Store(store.folder, limit_bytes=GB) as again:
        loaded = weights(kit, kit.runtime_of(runtime.registry, again))
        result = go(loaded, inputs={"plus": 1} if what == "inner" else {})
        assert result.outputs["o"] == 150_000 + (what == "inner")
        assert torch.equal(result.outputs["w"].tensors["w"], torch.full((50_000,), 3.0))
        assert result.steps_run == (2 if what == "inner" else 1)


def test_a_damaged_entry_deep_in_a_chain_costs_only_what_needs_it(
    kit: SimpleNamespace, runtime: Runtime, store: Store
) -> None:
    nodes = {
        "a": n("t.num@1", value=1),
        "w": n("t.big@1", value=r("a")),
        "s": n("t.sum@1", weights=r("w")),
        "t": n("t.sum@1", weights=r("w"), plus=r("inputs.plus")),
    }
    inputs = {"plus": {"type": "integer", "default": 1}}
    loaded = kit.graph_of(nodes, {"s": "s", "t": "t"}, inputs=inputs, runtime=runtime)
    go(loaded)
    flip_every_blob(store)
    with Store(store.folder, limit_bytes=GB) as again:
        loaded = kit.graph_of(
            nodes, {"s": "s", "t": "t"}, inputs=inputs, runtime=kit.runtime_of(runtime.registry, again)
        )
        result = go(loaded, inputs={"plus": 9})
    assert dict(result.outputs) == {"s": 50_000.0, "t": 50_009.0}
    assert result.steps_run == 2  # the weights, and the sum that is new


def test_a_damaged_encoded_output_is_written_anew(kit: SimpleNamespace, store: Store, tmp_path: Path) -> None:
    @node("t.text")
    def text() -> str:
        return "x" * 200_000

    runtime = kit.runtime_of(kit.registry_of(text), store)
    loaded = kit.graph_of({"a": n("t.text@1")}, {"o": "a"}, runtime=runtime)
    (first,) = go(loaded, out=tmp_path / "a").files
    flip_every_blob(store)
    with Store(store.folder, limit_bytes=GB) as again:
        loaded = kit.graph_of({"a": n("t.text@1")}, {"o": "a"}, runtime=kit.runtime_of(runtime.registry, again))
        result = go(loaded, out=tmp_path / "b")
    assert result.ok
    assert result.files[0].sha256 == first.sha256
    assert result.files[0].path.read_bytes() == first.path.read_bytes()


def test_a_failed_node_is_tried_again_by_the_next_run(kit: SimpleNamespace, store: Store) -> None:
    works: list[int] = []

    @node("t.later")
    def later() -> int:
        if not works:
            raise ValueError("not yet")
        return 1

    runtime = kit.runtime_of(kit.registry_of(later, num), store)
    loaded = kit.graph_of({"a": n("t.later@1"), "b": n("t.num@1", value=4)}, {"x": "a", "y": "b"}, runtime=runtime)
    assert not go(loaded).ok
    works.append(1)
    result = go(loaded)
    assert result.ok
    assert (result.steps_run, result.steps_cached) == (1, 1)


def test_two_runs_in_one_runtime_at_once_do_not_mix(
    kit: SimpleNamespace, runtime: Runtime, tmp_path: Path
) -> None:
    loaded = branches(kit, runtime)

    def one(i: int) -> tuple[int, int]:
        result = go(loaded, inputs={"x": i, "y": i % 3}, out=tmp_path / str(i), runs=tmp_path / "runs")
        return i, result.outputs["o"]

    with ThreadPoolExecutor(8) as pool:
        assert [value for _, value in pool.map(one, range(24))] == [i + i % 3 for i in range(24)]
    assert len(list((tmp_path / "runs").iterdir())) == 24


def test_a_graph_of_1_000_nodes_side_by_side_runs_on_disk(kit: SimpleNamespace, runtime: Runtime) -> None:
    nodes = {f"n{i}": n("t.num@1", value=i) for i in range(1000)}
    loaded = kit.graph_of(nodes, {f"o{i}": f"n{i}" for i in range(1000)}, runtime=runtime)
    assert list(go(loaded).outputs.values()) == list(range(1000))
    assert go(loaded).steps_cached == 1000


# --- several processes ---


@pytest.fixture
def walk(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Runs the walk, or another graph of the plugin, in a process of its own."""
    graphs = {
        "walk": {"walk": {"use": "t.walk@1", "inputs": {"seconds": r("inputs.seconds")}}},
        "digest": {
            "filled": {"use": "t.filled@1", "inputs": {"seconds": r("inputs.seconds")}},
            "digest": {"use": "t.digest@1", "inputs": {"weights": r("filled")}},
        },
    }
    for name, nodes in graphs.items():
        inputs = {"seconds": {"type": "number", "default": 0}}
        doc = {"format": 1, "name": name, "inputs": inputs, "nodes": nodes, "outputs": {"end": r(name)}}
        (tmp_path / f"{name}.json").write_text(json.dumps(doc))

    def start(store: str, out: str, seconds: float = 0.0, graph: str = "walk") -> subprocess.Popen[str]:
        paths = [str(tmp_path / p) for p in (store, f"{graph}.json", out)]
        return subprocess.Popen(
            [sys.executable, str(STEPPING), *paths, str(seconds)], stdout=subprocess.PIPE, text=True
        )

    return start


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return out.splitlines()


def test_a_run_killed_in_the_middle_of_a_node_goes_on_from_its_last_saved_step(
    walk: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    whole = lines_of(walk("one", "a", 0.02))
    killed = walk("two", "b", 0.02)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line == "saved 15\n":
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.communicate()
    assert not list((tmp_path / "b").glob("*.json"))
    resumed = lines_of(walk("two", "b", 0.02))
    assert whole[0] == "from 0"
    assert resumed[0] in ("from 15", "from 20")
    assert resumed[-1] == whole[-1]
    (one,), (two,) = (list((tmp_path / x).glob("*.json")) for x in "ab")
    assert one.read_bytes() == two.read_bytes()
    assert lines_of(walk("two", "c", 0.02)) == [whole[-1].replace("ran 1, cached 0", "ran 0, cached 1")]


def test_two_processes_that_run_the_same_graph_at_once_give_equal_files(
    walk: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    both = [walk("same", out, 0.01) for out in ("a", "a")]
    ends = {lines_of(p)[-1].partition(": ")[2] for p in both}
    assert len(ends) == 1
    (path,) = (tmp_path / "a").glob("*.json")
    assert json.loads(path.read_text()) in ends
    assert len(list((tmp_path / "a" / "runs").iterdir())) == 2
    with Store(tmp_path / "same", limit_bytes=GB) as store:
        assert not store.verify().damaged


def test_a_cached_run_imports_no_torch(walk: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    lines_of(walk("one", "a", graph="digest"))
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['x', *{[str(tmp_path / p) for p in ('one', 'digest.json', 'b')]!r}, '0.0']\n"
        f"runpy.run_path({str(STEPPING)!r}, run_name='__main__')\n"
        "assert 'torch' not in sys.modules, 'torch'\nassert 'networkx' not in sys.modules, 'networkx'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ran 0, cached 2" in done.stdout


def test_a_cancelled_run_keeps_its_state_for_the_next(kit: SimpleNamespace, store: Store) -> None:
    cancel, begun = threading.Event(), []

    @node("t.steps")
    def steps(ctx: Context) -> int:
        state = ctx.resume() or {"i": 0}
        begun.append(state["i"])
        for i in range(state["i"], 10):
            ctx.save_state({"i": i + 1})
            if i == 4:
                cancel.set()
            ctx.progress(i + 1, 10)
        return 10

    loaded = kit.graph_of({"a": n("t.steps@1")}, {"o": "a"}, runtime=kit.runtime_of(kit.registry_of(steps), store))
    assert go(loaded, cancel=cancel).status == "cancelled"
    cancel.clear()
    assert go(loaded, cancel=cancel).outputs["o"] == 10
    assert begun == [0, 5]
    assert [row.kind for row in store.ls()] == ["value"]
