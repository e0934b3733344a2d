"""What the engine itself costs: chains, trees and rows of nodes that do nothing, planned, run, and run again.

    python benchmarks/engine.py [--sizes 1000,10000] [--shapes chain,tree,wide] [--stores memory,disk] [--repeat 1]
                                [--json] [--profile SHAPE,SIZE,STORE]

Each case runs in a process of its own, so that its peak memory is its own. CPU time counts all threads; on a busy
machine it is the figure to compare. Targets: 10,000 nodes planned (load, validate, plan) in 1 s, run in 2 s.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
PHASES = ("parse", "validate", "plan", "run", "again", "again_files")
SHAPES: dict[str, Callable[[int], dict[str, list[str]]]] = {}


def shape(build: Callable[[int], dict[str, list[str]]]) -> Callable[[int], dict[str, list[str]]]:
    """Each shape says which nodes each node takes values of; the last node is the output."""
    SHAPES[build.__name__] = build
    return build


@shape
def chain(size: int) -> dict[str, list[str]]:
    """One after the other."""
    return {f"n{i}": [f"n{i - 1}"] if i else [] for i in range(size)}


@shape
def tree(size: int) -> dict[str, list[str]]:
    """A binary tree: leaves first, each other node takes two."""
    leaves = (size + 1) // 2
    nodes: dict[str, list[str]] = {f"n{i}": [] for i in range(leaves)}
    nodes |= {f"n{leaves + i}": [f"n{2 * i}", f"n{2 * i + 1}"] for i in range(leaves - 1)}
    return nodes


@shape
def wide(size: int) -> dict[str, list[str]]:
    """All side by side, and one that takes them all."""
    nodes: dict[str, list[str]] = {f"n{i}": [] for i in range(size - 1)}
    return {**nodes, "all": list(nodes)}


def document(name: str, size: int) -> dict[str, Any]:
    """The graph as JSON."""
    nodes: dict[str, Any] = {}
    for number, (node, needs) in enumerate(SHAPES[name](size).items()):
        values: list[Any] = [{"ref": need} for need in needs] or [number]
        nodes[node] = {"use": "bench.add@1", "inputs": {"values": values}}
    return {"format": 1, "name": name, "nodes": nodes, "outputs": {"sum": {"ref": list(nodes)[-1]}}}


class Clock:
    """Wall and CPU seconds of each phase."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] = time.perf_counter() - wall
        self.cpu[name] = time.process_time() - cpu


def measure(name: str, size: int, store: str) -> dict[str, Any]:
    """One case, in this process."""
    from mezzotint.contribution import Provenance
    from mezzotint.document import parse_doc, parse_json
    from mezzotint.nodes import node
    from mezzotint.registry import Registry
    from mezzotint.runner import run_graph
    from mezzotint.runtime import Runtime
    from mezzotint.settings import Settings
    from mezzotint.store import MemoryStore, Store
    from mezzotint.validate import validate

    @node("bench.add")
    def add(*, values: list[int]) -> int:
        return sum(values) % 1_000_003

    registry = Registry()
    registry.add_node(add, Provenance("bench", "1"))
    text = json.dumps(document(name, size))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        kept = MemoryStore() if store == "memory" else Store(Path(folder) / "store", limit_bytes=10**10)
        with kept:
            runtime = Runtime(registry, kept, Settings(device="cpu"))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with clock.phase("parse"):
                doc = parse_doc(parse_json(text))
            with clock.phase("validate"):
                graph = validate(doc, registry)
            with clock.phase("plan"):
                plan = runtime.plan(graph, {})
            steps = len(plan.steps)
            with clock.phase("run"):  # it plans again
                first = run_graph(graph, {}, runtime)
            with clock.phase("again"):
                again = run_graph(graph, {}, runtime)
            run_graph(graph, {}, runtime, out=Path(folder) / "out")
            with clock.phase("again_files"):  # the graph goes into the record and names the files
                run_graph(graph, {}, runtime, out=Path(folder) / "out", runs=Path(folder) / "runs")
    assert first.steps_run == steps and again.steps_run == 0 and first.outputs["sum"] == again.outputs["sum"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "shape": name, "nodes": size, "steps": steps, "store": store, "cpu": clock.cpu, "wall": clock.wall,
        "peak_bytes": peak * 1024, "grown_bytes": (peak - before) * 1024,
    }  # fmt: skip


def measured_apart(name: str, size: int, store: str, repeat: int) -> dict[str, Any]:
    """The best of several, each in a process of its own."""
    command = [sys.executable, str(HERE), "--one", f"{name},{size},{store}"]
    found = []
    for _ in range(repeat):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        found.append(json.loads(done.stdout))
    return min(found, key=lambda case: sum(case["cpu"].values()))


def profiled(name: str, size: int, store: str) -> None:
    import cProfile
    import pstats

    profile = cProfile.Profile()
    profile.runcall(measure, name, size, store)
    pstats.Stats(profile).sort_stats("tottime").print_stats(30)


def table(cases: list[dict[str, Any]]) -> None:
    print("CPU seconds (wall seconds); microseconds of CPU per node; memory over that of the imports")
    head = f"{'shape':6} {'nodes':>6} {'store':6}"
    print(head, *(f"{p:>13}" for p in PHASES), f"{'plan us':>8} {'run us':>7} {'again us':>8} {'MB':>6}")
    for case in cases:
        cpu, wall, size = case["cpu"], case["wall"], case["nodes"]
        planned = cpu["parse"] + cpu["validate"] + cpu["plan"]
        per = (1e6 * s / size for s in (planned, cpu["run"] - cpu["plan"], cpu["again"]))
        cells = (f"{cpu[p]:.2f} ({wall[p]:.2f})" for p in PHASES)
        row = f"{case['shape']:6} {size:6} {case['store']:6}"
        plan_us, run_us, again_us = per
        memory = case["grown_bytes"] / 2**20
        print(row, *(f"{c:>13}" for c in cells), f"{plan_us:8.0f} {run_us:7.0f} {again_us:8.0f} {memory:6.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000")
    parser.add_argument("--shapes", default="chain,tree,wide")
    parser.add_argument("--stores", default="memory,disk")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", metavar="SHAPE,SIZE,STORE")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one or options.profile:
        name, size, store = (options.one or options.profile).split(",")
        if options.profile:
            profiled(name, int(size), store)
        else:
            print(json.dumps(measure(name, int(size), store)))
        return
    cases = [
        measured_apart(name, int(size), store, options.repeat)
        for store in options.stores.split(",")
        for name in options.shapes.split(",")
        for size in options.sizes.split(",")
    ]
    if options.json:
        print(json.dumps(cases, indent=1))
    else:
        table(cases)


if __name__ == "__main__":
    main()
