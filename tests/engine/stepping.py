"""A plugin for the tests of runs in several processes: a node that goes step by step and can be killed."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mezzotint.api import load
from mezzotint.context import Context
from mezzotint.hookspecs import hookimpl
from mezzotint.nodes import node
from mezzotint.plugins import load_registry
from mezzotint.ports import Weights
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import Store


@node("t.walk")
def walk(ctx: Context, *, steps: int = 40, seconds: float = 0.0) -> str:
    """A chain of digests, so that each step hangs on the one before; it saves its state at each fifth."""
    state = ctx.resume()
    first, x = (int(state["step"]), str(state["x"])) if state else (0, "")
    print(f"from {first}", flush=True)
    for i in range(first, steps):
        x = hashlib.sha256(f"{i} {x}".encode()).hexdigest()
        time.sleep(seconds)
        if i % 5 == 4:
            ctx.save_state({"step": i + 1, "x": x})
            print(f"saved {i + 1}", flush=True)
        ctx.progress(i + 1, steps)
    return x


@node("t.filled")
def filled(*, seconds: float) -> Weights:
    """Many numbers; they need torch to be made."""
    import torch

    return Weights({"x": torch.full((50_000,), seconds)})


@node("t.digest")
def digest(weights: Weights) -> str:
    """The sha256 of the numbers."""
    return hashlib.sha256(weights.tensors["x"].numpy().tobytes()).hexdigest()


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    for each in (walk, filled, digest):
        register(each)


def main() -> None:
    """`stepping.py STORE GRAPH OUT SECONDS`: run, and print what came out."""
    folder, graph, out, seconds = sys.argv[1:]
    registry = load_registry(installed=False, namespaces=(), files=[Path(__file__)])
    with Store(folder, limit_bytes=10**9, types=registry.types) as store:
        runtime = Runtime(registry, store, Settings(device="cpu"))
        result = load(graph, runtime=runtime).run(out=out, runs=Path(out) / "runs", seconds=float(seconds))
        print(f"ran {result.steps_run}, cached {result.steps_cached}: {result.outputs['end']}", flush=True)


if __name__ == "__main__":
    main()
