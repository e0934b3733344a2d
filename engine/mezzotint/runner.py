"""One run, from a validated graph to files: plan, execute, encode, write, record."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mezzotint.errors import Cancelled, NodeError, StoreError
from mezzotint.events import CacheHit, Event, NodeFailed, RunFinished, RunStarted, Warned
from mezzotint.execute import LostValue, Outcome, execute
from mezzotint.literals import FileRef
from mezzotint.plan import Plan, StepOutput, step_outputs
from mezzotint.store import MISS

if TYPE_CHECKING:
    from mezzotint.graph import Graph
    from mezzotint.outputs import OutputFile, OutputFolder
    from mezzotint.runtime import Runtime

__all__ = ["Outputs", "RunResult", "run_graph"]

Status = Literal["done", "failed", "cancelled"]


class Outputs(Mapping[str, Any]):
    """The output values that a run made, by name; what was cached is read from the store when it is asked for."""

    def __init__(self, plan: Plan, values: Mapping[str, Mapping[str, Any]], runtime: Runtime) -> None:
        self._plan = plan
        self._values = dict(values)
        self._runtime = runtime
        keys = {name: [o.key for o in step_outputs(tree)] for name, tree in plan.outputs.items()}
        self._made = {n: None for n, ks in keys.items() if all(k in plan.cached or k in values for k in ks)}

    def __getitem__(self, name: str) -> Any:
        """Raises: KeyError: if the run did not make it."""
        if name in self._plan.outputs and name not in self._made:
            raise KeyError(f"{name!r} was not made: a node failed, or the run was cancelled")
        return self._fill(self._plan.outputs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def ready(self, name: str) -> bool:
        """Whether the output was made (and not lost to a failure)."""
        return name in self._made

    def _fill(self, tree: Any) -> Any:
        if isinstance(tree, StepOutput):
            if tree.key not in self._values:
                found = self._runtime.store.get(tree.key)
                if found is MISS:
                    raise LostValue(tree.key)
                self._values[tree.key] = found
            return self._values[tree.key][tree.port]
        if isinstance(tree, FileRef):
            return tree.text
        if isinstance(tree, str):
            return str(tree)
        if isinstance(tree, list):
            return [self._fill(t) for t in tree]
        if isinstance(tree, dict):
            return {k: self._fill(t) for k, t in tree.items()}
        return tree


@dataclass(frozen=True)
class RunResult:
    """What a run gave. outputs: values by name. files: what was written. failures: by node."""

    run: str
    status: Status
    outputs: Outputs
    plan: Plan
    files: tuple[OutputFile, ...] = ()
    failures: Mapping[str, NodeError] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    seconds: float = 0.0
    steps_run: int = 0
    steps_cached: int = 0

    @property
    def ok(self) -> bool:
        return self.status == "done"

    def check(self) -> RunResult:
        """The result itself.

        Raises: NodeError: of the first node that failed. NodeTimeout, Cancelled: if the run was stopped.
        """
        for error in self.failures.values():
            raise error
        if self.status == "cancelled":
            raise Cancelled("the run was cancelled")
        return self


def run_graph(
    graph: Graph,
    inputs: Mapping[str, Any],
    runtime: Runtime,
    *,
    wanted: list[str] | None = None,
    out: Path | None = None,
    runs: Path | None = None,
    name: str | None = None,
    cancel: threading.Event | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> RunResult:
    """Run a graph.

    out: folder for the output files; None writes none. runs: folder for the run record; None keeps none.
    name: how files begin, in place of the graph's name. cancel: set it from another thread to stop at the next
    step.

    Raises: GraphError: for bad inputs. A node's failure is in the result, not raised: see `RunResult.check`.
    """
    run = _Run(graph, inputs, runtime, wanted, out, runs, name, cancel or threading.Event(), on_event)
    return run.go()


class _Run:
    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[str, Any],
        runtime: Runtime,
        wanted: list[str] | None,
        out: Path | None,
        runs: Path | None,
        name: str | None,
        cancel: threading.Event,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self.graph = graph
        self.inputs = inputs
        self.runtime = runtime
        self.wanted = wanted
        self.out = out
        self.runs = runs
        self.stem = name or graph.name
        self.cancel = cancel
        self.on_event = on_event
        self.lock = threading.RLock()  # a listener may look at a preview, which may be a node that reports
        self.started = datetime.now(UTC)
        # Sorted by time; the rest keeps apart what starts at the same moment.
        self.id = f"{self.started:%Y%m%d-%H%M%S}-{self.started.microsecond:06}-{secrets.token_hex(2)}"
        self.failures: dict[str, NodeError] = {}
        self.warned: set[str] = set()
        self.meta = ""

    def emit(self, event: Event) -> None:
        """Events come from several threads, one at a time to whoever listens; no warning comes twice."""
        with self.lock:
            if self.on_event is None or (isinstance(event, Warned) and event.message in self.warned):
                return
            if isinstance(event, Warned):
                self.warned.add(event.message)
            try:
                self.on_event(event)
            except Exception:
                # Whoever watches must not be able to stop the work.
                self.on_event = None
                import logging  # 5 ms, and most runs have nothing to say

                logging.getLogger("mezzotint").exception("the run goes on, but nobody is told: on_event failed")

    def warn(self, error: StoreError) -> None:
        self.emit(Warned(f"results cannot be kept for later runs: {error}"))

    def go(self) -> RunResult:
        clock = time.perf_counter()
        plan = self.runtime.plan(self.graph, self.inputs, self.wanted, warn=self.warn)
        if self.out is not None or self.runs is not None:
            from mezzotint.embed import embed

            self.meta = embed(self.graph, plan.inputs)
        with self.pinned(plan):
            plan, outcome, files = self.attempts(plan)
        try:
            self.runtime.store.flush()
        except StoreError as error:
            self.warn(error)
        status = self.status(outcome)
        seconds = time.perf_counter() - clock
        ran = len(outcome.seconds)
        result = RunResult(
            run=self.id, status=status, outputs=Outputs(plan, outcome.values, self.runtime), plan=plan,
            files=tuple(files), failures={**outcome.failures, **self.failures}, skipped=tuple(outcome.skipped),
            stuck=tuple(outcome.stuck), seconds=seconds, steps_run=ran,
            steps_cached=len(plan.steps) - ran - len(outcome.failures) - len(outcome.skipped),
        )  # fmt: skip
        self.record(result, outcome)
        self.emit(RunFinished(self.id, status, seconds))
        with self.lock:
            self.on_event = None  # a node that ignored its time-out may still report
        return result

    @contextmanager
    def pinned(self, plan: Plan) -> Iterator[None]:
        """Keep what the plan needs from eviction, if the store can."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.runtime.store.pin(plan.steps))
            except StoreError as error:
                self.warn(error)
            yield
            try:
                stack.close()
            except StoreError as error:
                self.warn(error)

    def attempts(self, plan: Plan) -> tuple[Plan, Outcome, list[OutputFile]]:
        """Run; where a cached value turns out to be damaged or gone, again without it."""
        lost: frozenset[str] = frozenset()
        while True:
            try:
                return (plan, *self.attempt(plan, first=not lost))
            except LostValue as gone:
                if gone.keys <= lost:
                    text = "the store loses what was just put into it; see `mezzotint cache verify`"
                    raise StoreError(text) from gone
                lost |= gone.keys
                # What the lost attempt has finished is a hit by now.
                plan = replace(plan, cached=frozenset(self.runtime.present(plan.steps, self.warn) - lost))

    def attempt(self, plan: Plan, first: bool) -> tuple[Outcome, list[OutputFile]]:
        folder, encoded = None, {}
        if self.out is not None:
            from mezzotint.outputs import OutputFolder

            folder = OutputFolder(plan, self.runtime, self.out, self.stem, self.meta, self.emit)
            encoded = folder.encoded() if first else {}
        demand = plan.demand(n for n in plan.outputs if n not in encoded)
        if first:
            pending = len(demand.pending)
            self.emit(RunStarted(self.id, self.graph.name, pending, len(plan.steps) - pending))
        if not demand.pending:
            loads = {step.key for step in demand.loads}
            for step in plan.steps.values():
                if step.key not in loads:
                    self.emit(CacheHit(step.name, step.use, step.key))
        keep = frozenset(o.key for tree in plan.outputs.values() for o in step_outputs(tree))
        outcome = execute(demand, self.runtime, keep=keep, cancel=self.cancel, emit=self.emit)
        outputs = Outputs(plan, outcome.values, self.runtime)
        return outcome, self.write(folder, outputs, encoded) if folder is not None else []

    def write(
        self, folder: OutputFolder, outputs: Outputs, encoded: Mapping[str, list[dict[str, Any]]]
    ) -> list[OutputFile]:
        files: list[OutputFile] = []
        for name in folder.plan.outputs:
            if name not in outputs and name not in encoded:
                continue
            try:
                files += folder.write(name, encoded.get(name), partial(outputs.__getitem__, name))
            except LostValue:
                raise
            except Exception as error:  # one output that cannot be written must not lose the others
                self.failures[name] = NodeError(name, "output", error)
                self.failures[name].__cause__ = error
                self.emit(NodeFailed(name, "output", str(self.failures[name]), error))
        return files

    def status(self, outcome: Outcome) -> Status:
        if outcome.failures or self.failures:
            return "failed"
        return "cancelled" if outcome.cancelled and outcome.skipped else "done"

    def record(self, result: RunResult, outcome: Outcome) -> None:
        if self.runs is None:
            return
        from mezzotint.record import write_record

        try:
            write_record(self.runs, result, outcome, self.graph, self.runtime, self.started, self.meta)
        except Exception as error:  # the run is done, and its files are written
            self.emit(Warned(f"the run's record could not be written: {error}"))
