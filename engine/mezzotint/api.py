"""Mezzotint from Python: load a graph, run it, look at the result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.runtime import Runtime, default_runtime

if TYPE_CHECKING:
    from mezzotint.events import Event
    from mezzotint.graph import Graph
    from mezzotint.plan import Plan
    from mezzotint.runner import RunResult

__all__ = ["LoadedGraph", "load"]


@dataclass(frozen=True)
class LoadedGraph:
    """A validated graph, ready to run."""

    graph: Graph
    runtime: Runtime

    def plan(self, /, **inputs: Any) -> Plan:
        """What a run with these inputs would do."""
        return self.runtime.plan(self.graph, inputs)

    def run(
        self,
        /,
        *,
        out: Path | str | None = None,
        runs: Path | str | None = None,
        cancel: threading.Event | None = None,
        on_event: Callable[[Event], None] | None = None,
        **inputs: Any,
    ) -> RunResult:
        """Run the graph with these inputs; `out` is a folder for files, without it values only.

        Raises: GraphError: for bad inputs. NodeError: when a node failed.
        """
        from mezzotint.runner import run_graph

        result = run_graph(
            self.graph, inputs, self.runtime,
            out=Path(out) if out else None, runs=Path(runs) if runs else None, cancel=cancel, on_event=on_event,
        )  # fmt: skip
        return result.check()

    async def arun(self, /, **options: Any) -> RunResult:
        """`run` without blocking the event loop. Cancelling the task stops the run at its next step."""
        import asyncio  # 30 ms, and only needed here

        cancel = options.pop("cancel", None) or threading.Event()
        work = asyncio.get_running_loop().run_in_executor(None, lambda: self.run(cancel=cancel, **options))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancel.set()
            await asyncio.wait([work])
            work.exception()  # looked at: the task's own end is what counts now
            raise


def load(
    source: str | Path | Mapping[str, Any],
    *,
    runtime: Runtime | None = None,
    allow: tuple[Path | str, ...] = (),
) -> LoadedGraph:
    """Load and validate a graph: a JSON file, `bundled:graphs/…`, a picture made by Mezzotint, or parsed JSON.

    runtime: the default one has the installed plugins and the user's store.
    allow: folders that paths written in the graph may lie in, besides its own.

    Raises: GraphError: every problem found. UserError: if the file is not there.
    """
    runtime = runtime or default_runtime()
    allowed = tuple(Path(p).resolve() for p in allow)
    if isinstance(source, Mapping):
        from mezzotint.document import parse_doc
        from mezzotint.validate import validate

        return LoadedGraph(validate(parse_doc(_copied(source)), runtime.registry, allowed=allowed), runtime)
    from mezzotint.reading import read_file

    return LoadedGraph(read_file(source).validate(runtime.registry, allowed), runtime)


def _copied(source: Mapping[str, Any]) -> Any:
    """Parsed JSON as a graph's own, held to the rules of a file."""
    import json

    from mezzotint.document import parse_json
    from mezzotint.errors import GraphError, Problem

    try:
        return parse_json(json.dumps(dict(source), allow_nan=False), "graph")
    except (TypeError, ValueError, RecursionError) as error:
        raise GraphError([Problem("", f"not JSON: {error}", "syntax", file="graph")]) from None
