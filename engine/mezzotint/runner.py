"""One run, from a validated graph to files: plan, execute, encode, write, record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mezzotint.errors import Cancelled, MezzotintError, NodeError, StoreError
from mezzotint.events import CacheHit, Event, NodeFailed, RunFinished, RunStarted
from mezzotint.execute import LostValue, Outcome, execute
from mezzotint.plan import Plan, StepOutput, step_outputs
from mezzotint.store import MISS

if TYPE_CHECKING:
    from mezzotint.graph import Graph
    from mezzotint.outputs import OutputFile
    from mezzotint.runtime import Runtime

__all__ = ["Outputs", "RunResult", "run_graph"]

Status = Literal["done", "failed", "cancelled"]


class Outputs(Mapping[str, Any]):
    """A run's output values by name; what was cached is read from the store when it is first asked for."""

    def __init__(self, plan: Plan, values: Mapping[str, Mapping[str, Any]], runtime: Runtime) -> None:
        self._plan = plan
        self._values = dict(values)
        self._runtime = runtime

    def __getitem__(self, name: str) -> Any:
        return self._fill(self._plan.outputs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.outputs)

    def __len__(self) -> int:
        return len(self._plan.outputs)

    def ready(self, name: str) -> bool:
        """Whether the output was made (and not lost to a failure)."""
        known = self._plan.cached | self._values.keys()
        return all(o.key in known for o in step_outputs(self._plan.outputs[name]))

    def _fill(self, tree: Any) -> Any:
        if isinstance(tree, StepOutput):
            if tree.key not in self._values:
                found = self._runtime.store.get(tree.key)
                if found is MISS:
                    raise LostValue(tree.key)
                self._values[tree.key] = found
            return self._values[tree.key][tree.port]
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
    name: how files begin, in place of the graph's name. cancel: set it from another thread to stop at the next step.

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
        self.lock = threading.Lock()
        self.started = datetime.now(UTC)
        self.id = f"{self.started:%Y%m%d-%H%M%S}-{self.started.microsecond:06}"
        self.failures: dict[str, NodeError] = {}

    def emit(self, event: Event) -> None:
        """Events come from several threads, one at a time to whoever listens."""
        if self.on_event is not None:
            with self.lock:
                self.on_event(event)

    def go(self) -> RunResult:
        clock = time.perf_counter()
        plan = self.runtime.plan(self.graph, self.inputs, self.wanted)
        with self.runtime.store.pin(plan.steps):
            while True:
                try:
                    plan, outcome, files = self.attempt(plan)
                    break
                except LostValue as lost:
                    # Damaged or gone since it was planned: make it again, along with what only it needs.
                    plan = replace(plan, cached=plan.cached - {lost.key})
        self.flush()
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
        return result

    def attempt(self, plan: Plan) -> tuple[Plan, Outcome, list[OutputFile]]:
        meta, encoded = "", {}
        if self.out is not None:
            from mezzotint.embed import embed
            from mezzotint.outputs import encoded_outputs

            meta = embed(self.graph, plan.inputs)
            encoded = encoded_outputs(plan, self.runtime, meta)
        to_make = [n for n in plan.outputs if n not in encoded and (self.out is not None or self.must_make(plan, n))]
        demand = plan.demand(to_make)
        self.emit(RunStarted(self.id, self.graph.name, len(demand.pending), len(plan.steps) - len(demand.pending)))
        if not demand.pending:
            demand = replace(demand, loads=())
            for step in plan.steps.values():
                self.emit(CacheHit(step.name, step.use, step.key))
        keep = frozenset(o.key for n in plan.outputs for o in step_outputs(plan.outputs[n]))
        outcome = execute(demand, self.runtime, keep=keep, cancel=self.cancel, emit=self.emit)
        outputs = Outputs(plan, outcome.values, self.runtime)
        files = self.write(plan, outputs, encoded, meta) if self.out is not None else []
        return plan, outcome, files

    @staticmethod
    def must_make(plan: Plan, name: str) -> bool:
        return any(o.key not in plan.cached for o in step_outputs(plan.outputs[name]))

    def write(
        self, plan: Plan, outputs: Outputs, encoded: Mapping[str, list[dict[str, Any]]], meta: str
    ) -> list[OutputFile]:
        from mezzotint.outputs import write_output

        assert self.out is not None
        files = []
        for name in plan.outputs:
            if not outputs.ready(name) and name not in encoded:
                continue
            try:
                files += write_output(
                    plan, name, self.runtime, self.out, meta, self.stem, encoded.get(name),
                    lambda n=name: outputs[n], self.emit,  # type: ignore[misc]
                )  # fmt: skip
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

    def flush(self) -> None:
        try:
            self.runtime.store.flush()
        except StoreError as error:
            from mezzotint.events import Warned

            self.emit(Warned(f"results cannot be kept for later runs: {error}"))

    def record(self, result: RunResult, outcome: Outcome) -> None:
        if self.runs is None:
            return
        from mezzotint.record import write_record

        try:
            write_record(self.runs, result, outcome, self.graph, self.runtime, self.started)
        except (OSError, MezzotintError) as error:
            from mezzotint.events import Warned

            self.emit(Warned(f"the run's record could not be written: {error}"))


