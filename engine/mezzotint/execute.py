"""The local executor: steps side by side in threads, values freed at last use, failures kept to their branch."""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.context import Context
from mezzotint.errors import (
    Cancelled,
    MezzotintError,
    NodeError,
    NodeTimeout,
    StoreError,
    TransientError,
    UserError,
)
from mezzotint.events import (
    CacheHit,
    Event,
    NodeFailed,
    NodeFinished,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    Warned,
)
from mezzotint.literals import FileRef
from mezzotint.plan import Demand, Step, StepOutput
from mezzotint.services import StepServices
from mezzotint.store import MISS
from mezzotint.values import Source, Value

if TYPE_CHECKING:
    from mezzotint.runtime import Runtime
    from mezzotint.signature import InputSpec

__all__ = ["LostValue", "Outcome", "execute", "value_bytes"]


class LostValue(Exception):
    """A value that the plan took as cached is gone or damaged: plan again without it."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@dataclass
class Outcome:
    """What an execution gave. values: outputs of the steps to keep, by key. stuck: nodes that ignored their time-out."""

    values: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: dict[str, NodeError] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    stuck: list[str] = field(default_factory=list)
    cancelled: bool = False


@dataclass(frozen=True)
class _Done:
    step: Step
    outputs: Mapping[str, Any] | None
    error: BaseException | None
    seconds: float
    size: int = 0


def execute(
    demand: Demand,
    runtime: Runtime,
    *,
    keep: frozenset[str],
    cancel: threading.Event,
    emit: Callable[[Event], None],
) -> Outcome:
    """Run the pending steps. keep: keys of the steps whose outputs the caller wants.

    Raises: LostValue: when a cached value cannot be read.
    """
    run = _Execution(demand, runtime, keep, cancel, emit)
    try:
        return run.loop()
    finally:
        run.stop()


class _Execution:
    def __init__(
        self,
        demand: Demand,
        runtime: Runtime,
        keep: frozenset[str],
        cancel: threading.Event,
        emit: Callable[[Event], None],
    ) -> None:
        self.demand = demand
        self.runtime = runtime
        self.settings = runtime.settings
        self.keep = keep
        self.cancel = cancel
        self.emit = emit
        self.order = {s.key: i for i, s in enumerate(demand.pending)}
        self.uses = dict(demand.uses)
        self.values: dict[str, Mapping[str, Any]] = {}
        self.sizes: dict[str, int] = {}
        self.outcome = Outcome()
        self.dead: dict[str, str] = {}
        self.running: dict[str, StepServices | None] = {}
        self.tasks: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[_Done] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.device_busy = 0
        self.store_warned = False

    def loop(self) -> Outcome:
        for step in self.demand.loads:
            self.load(step)
        pending = self.demand.pending
        waiting = {s.key: sum(k in self.order for k in s.needs) for s in pending}
        users: dict[str, list[Step]] = {}
        for step in pending:
            for key in step.needs:
                if key in self.order:
                    users.setdefault(key, []).append(step)
        ready = [(self.order[s.key], s) for s in pending if not waiting[s.key]]
        heapq.heapify(ready)
        held: list[tuple[int, Step]] = []
        while ready or held or self.running:
            held = self.start_ready(ready, held)
            if not self.running:
                if not (ready or held):
                    break
                continue
            done = self.wait()
            if done is None:
                break
            self.finish(done)
            for user in users.get(done.step.key, ()):
                waiting[user.key] -= 1
                if not waiting[user.key]:
                    heapq.heappush(ready, (self.order[user.key], user))
        self.outcome.cancelled = self.cancel.is_set()
        self.outcome.values = {k: v for k, v in self.values.items() if k in self.keep}
        return self.outcome

    def load(self, step: Step) -> None:
        found = self.runtime.store.get(step.key)
        if found is MISS:
            raise LostValue(step.key)
        self.values[step.key] = found
        self.emit(CacheHit(step.name, step.use, step.key))

    def start_ready(self, ready: list[tuple[int, Step]], held: list[tuple[int, Step]]) -> list[tuple[int, Step]]:
        """Start what may start; give what must wait for the device or for memory."""
        for item in held:
            heapq.heappush(ready, item)
        held = []
        while ready and len(self.running) < self.settings.resolved_workers:
            index, step = heapq.heappop(ready)
            because = next((self.dead[k] for k in step.needs if k in self.dead), "")
            if because or self.cancel.is_set():
                self.skip(step, because or "the run was cancelled")
                # Whoever waits for it is skipped in turn when its count runs out.
                self.results.put(_Done(step, None, None, 0.0))
                self.running[step.key] = None
                continue
            if self.must_wait(step):
                held.append((index, step))
                continue
            self.start(step)
        return held

    def must_wait(self, step: Step) -> bool:
        on_device = self.spec(step).device
        if on_device and self.device_busy >= self.settings.device_slots:
            return True
        return bool(self.running) and sum(self.sizes.values()) > self.settings.memory_limit

    def spec(self, step: Step) -> Any:
        id, _, version = step.use.partition("@")
        return self.runtime.registry.node(id, int(version))

    def start(self, step: Step) -> None:
        spec = self.spec(step)
        self.running[step.key] = StepServices(step, spec, self.runtime, self.cancel, self.emit)
        self.device_busy += spec.device
        if len(self.threads) < min(len(self.running), self.settings.resolved_workers):
            thread = threading.Thread(target=self.work, name=f"mezzotint-{len(self.threads)}", daemon=True)
            self.threads.append(thread)
            thread.start()
        self.tasks.put(step)

    def work(self) -> None:
        while (step := self.tasks.get()) is not None:
            self.results.put(self.run_step(step))

    def stop(self) -> None:
        for _ in self.threads:
            self.tasks.put(None)

    def run_step(self, step: Step) -> _Done:
        """Run one step to its end, retries and all; never raises."""
        services = self.running[step.key]
        assert services is not None
        spec = services.spec
        started = time.perf_counter()
        self.emit(NodeStarted(step.name, step.use, step.key))
        try:
            inputs = {name: self.materialise(spec.inputs[name], tree) for name, tree in step.inputs.items()}
            outputs = self.attempt(step, services, inputs)
            size = sum(value_bytes(v) for v in outputs.values())
            self.put(step, outputs, time.perf_counter() - started, services)
            return _Done(step, outputs, None, time.perf_counter() - started, size)
        except BaseException as error:
            return _Done(step, None, error, time.perf_counter() - started)
        finally:
            services.close()

    def attempt(self, step: Step, services: StepServices, inputs: Mapping[str, Any]) -> dict[str, Any]:
        hooks = self.runtime.registry.hooks
        transient = (TransientError, *services.spec.transient)
        for attempt in range(self.settings.retries + 1):
            hooks.before_node(name=step.name, use=step.use, inputs=inputs)
            started = time.perf_counter()
            try:
                outputs = services.spec.call(Context(services), inputs)
            except Cancelled:
                raise services.cancelled_as() from None
            except transient as error:
                if attempt == self.settings.retries:
                    raise
                self.emit(NodeRetried(step.name, step.use, attempt + 1, str(error)))
                self.cancel.wait(0.1 * 2**attempt)
            else:
                hooks.after_node(
                    name=step.name, use=step.use, outputs=outputs, seconds=time.perf_counter() - started
                )
                return outputs
        raise AssertionError("unreachable")

    def put(self, step: Step, outputs: Mapping[str, Any], seconds: float, services: StepServices) -> None:
        """Keep a finished step. A store that fails costs a warning, not the result."""
        if not services.spec.cacheable:
            return
        try:
            self.runtime.store.put(step.key, outputs, node=step.use, seconds=seconds)
            if services.has_state:
                self.runtime.store.drop_state(step.key)
        except StoreError as error:
            if not self.store_warned:
                self.store_warned = True
                self.emit(Warned(f"results cannot be kept for later runs: {error}"))

    def materialise(self, spec: InputSpec, tree: Any) -> Any:
        """An input's planned value as what the node's function takes."""
        if isinstance(tree, StepOutput):
            return self.checked(spec, self.values[tree.key][tree.port])
        if isinstance(tree, FileRef):
            return self.file(tree)
        if isinstance(tree, list) and spec.holds_ports:
            return [self.values[t.key][t.port] if isinstance(t, StepOutput) else t for t in tree]
        if isinstance(tree, (list, dict)):
            return spec.adapter.validate_python(self.fill(tree)) if spec.type.name not in ("file", "source") else self.fill(tree)
        return tree

    def fill(self, tree: Any) -> Any:
        if isinstance(tree, StepOutput):
            return self.values[tree.key][tree.port]
        if isinstance(tree, FileRef):
            return self.file(tree)
        if isinstance(tree, list):
            return [self.fill(t) for t in tree]
        if isinstance(tree, dict):
            return {k: self.fill(t) for k, t in tree.items()}
        return tree

    def file(self, ref: FileRef) -> Path | Source:
        if ref.kind == "file":
            return Path(ref.path)
        return Source(uri=ref.text, path=ref.path, fingerprint=self.runtime.digest(ref.path))

    @staticmethod
    def checked(spec: InputSpec, value: Any) -> Any:
        """A JSON value that another node computed, as strictly as one written in the graph."""
        if isinstance(value, Value) or spec.holds_ports or value is None:
            return value
        if spec.type.name in ("file", "source"):
            raise UserError(f"input {spec.name!r} is a file: it is written in the graph or given to it, not computed")
        from pydantic import ValidationError

        try:
            return spec.adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"input {spec.name!r}: {first['msg']}, got {value!r}") from None

    def wait(self) -> _Done | None:
        """The next finished step; None when only nodes are left that ignored their time-out."""
        while True:
            try:
                return self.results.get(timeout=self.patience())
            except queue.Empty:
                self.give_up_on_stuck()
                if not self.running:
                    return None

    def patience(self) -> float | None:
        deadlines = [s.deadline for s in self.running.values() if s is not None and s.deadline is not None]
        if not deadlines:
            return None
        return max(0.01, min(deadlines) + self.settings.grace - time.monotonic())

    def give_up_on_stuck(self) -> None:
        now = time.monotonic()
        for key, services in list(self.running.items()):
            if services is None or services.deadline is None or now < services.deadline + self.settings.grace:
                continue
            del self.running[key]
            self.device_busy -= services.spec.device
            name = services.step.name
            self.outcome.stuck.append(name)
            error = NodeTimeout(f"node {name!r} ran out of time and did not stop within {self.settings.grace:g} s")
            self.fail(services.step, error)

    def finish(self, done: _Done) -> None:
        step = done.step
        if step.key not in self.running:  # given up on earlier: too late
            return
        services = self.running.pop(step.key)
        if services is not None:
            self.device_busy -= services.spec.device
            if done.error is not None:
                self.fail(step, done.error)
            elif done.outputs is not None:
                self.keep_outputs(step, done)
        self.release(step)

    def keep_outputs(self, step: Step, done: _Done) -> None:
        assert done.outputs is not None
        self.outcome.seconds[step.key] = done.seconds
        self.outcome.sizes[step.key] = done.size
        if self.uses.get(step.key) or step.key in self.keep:
            self.values[step.key] = done.outputs
            self.sizes[step.key] = done.size
        self.emit(NodeFinished(step.name, step.use, step.key, done.seconds, done.size))

    def release(self, step: Step) -> None:
        """Free what this step was the last to need."""
        for key in step.needs:
            self.uses[key] -= 1
            if not self.uses[key] and key not in self.keep:
                self.values.pop(key, None)
                self.sizes.pop(key, None)

    def fail(self, step: Step, error: BaseException) -> None:
        if isinstance(error, Cancelled) and not isinstance(error, NodeTimeout):
            self.skip(step, "the run was cancelled")
            return
        wrapped = NodeError(step.name, step.use, error)
        wrapped.__cause__ = error
        self.outcome.failures[step.name] = wrapped
        self.dead[step.key] = f"{step.name} failed"
        if not isinstance(error, MezzotintError):
            self.runtime.registry.hooks.node_error(name=step.name, use=step.use, error=error)
        self.emit(NodeFailed(step.name, step.use, str(wrapped), error))
        if self.settings.fail_fast:
            self.cancel.set()

    def skip(self, step: Step, because: str) -> None:
        self.dead[step.key] = because
        self.outcome.skipped.append(step.name)
        self.emit(NodeSkipped(step.name, step.use, because))


def value_bytes(value: Any) -> int:
    """Bytes of the tensors in a value that are in memory now; what still lies in the store does not count."""
    if isinstance(value, Value):
        return sum(value_bytes(v) for v in vars(value).values())
    if isinstance(value, (list, tuple)):
        return sum(value_bytes(v) for v in value)
    if isinstance(value, dict):
        return sum(value_bytes(v) for v in value.values())
    return int(getattr(value, "nbytes", 0) or 0)
