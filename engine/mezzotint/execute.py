"""The local executor: steps side by side in threads, values freed at last use, failures kept to their branch."""

from __future__ import annotations

import heapq
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mezzotint.arguments import Arguments
from mezzotint.blobs import Evicted
from mezzotint.context import Context
from mezzotint.errors import (
    Cancelled,
    MezzotintError,
    NodeError,
    NodeTimeout,
    StoreError,
    TransientError,
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
from mezzotint.lazy_packages import forward_replaced
from mezzotint.services import StepServices, Stop
from mezzotint.store import MISS
from mezzotint.values import Value

if TYPE_CHECKING:
    from mezzotint.nodes import NodeSpec
    from mezzotint.plan import Demand, Step
    from mezzotint.runtime import Runtime

__all__ = ["LostValue", "Outcome", "execute", "value_bytes"]

forward_replaced()  # before there are threads that import


class LostValue(Exception):
    """Values that the plan took as cached are gone or damaged: plan again without them."""

    def __init__(self, *keys: str) -> None:
        super().__init__(*keys)
        self.keys = frozenset(keys)


@dataclass
class Outcome:
    """What an execution gave.

    values: outputs of the steps to keep, by key. failures: by step name. stuck: steps that ignored their time-out.
    """

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
    run = _Execution(demand, runtime, keep, Stop(cancel), emit)
    try:
        return run.loop()
    except BaseException:
        run.stop.halt.set()  # what still runs ends at its next step
        raise
    finally:
        run.end_threads()


class _Execution:
    """All fields are the main thread's; workers only read `values` and `services`, and write to `results`."""

    def __init__(
        self, demand: Demand, runtime: Runtime, keep: frozenset[str], stop: Stop, emit: Callable[[Event], None]
    ) -> None:
        self.demand = demand
        self.runtime = runtime
        self.settings = runtime.settings
        self.workers = runtime.settings.resolved_workers
        self.keep = keep
        self.stop = stop
        self.emit = emit
        self.outcome = Outcome()
        # What is to do: how many steps each one waits for, who waits for it, and those that may start, in order.
        self.order = {s.key: i for i, s in enumerate(demand.pending)}
        self.waiting = {s.key: sum(k in self.order for k in s.needs) for s in demand.pending}
        self.users: dict[str, list[Step]] = {}
        for step in demand.pending:
            for key in step.needs:
                self.users.setdefault(key, []).append(step)
        self.ready: dict[bool, list[tuple[int, Step]]] = {False: [], True: []}
        self.dead: dict[str, str] = {}
        # What is there: values that somebody still needs, and their bytes.
        self.uses = dict(demand.uses)
        self.values: dict[str, Mapping[str, Any]] = {}
        self.loaded = frozenset(s.key for s in demand.loads)
        self.sizes: dict[str, int] = {}
        self.live_bytes = 0
        self.arguments = Arguments(self.values, runtime.digest)
        # What is under way.
        self.specs: dict[str, NodeSpec] = {}
        self.running: dict[str, StepServices] = {}
        self.device_busy = 0
        self.tasks: queue.SimpleQueue[StepServices | None] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[_Done] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.store_warned = False

    # --- the main thread ---

    def loop(self) -> Outcome:
        for step in self.demand.loads:
            self.load(step)
        for step in self.demand.pending:
            if not self.waiting[step.key]:
                self.push(step)
        while True:
            self.start_ready()
            if not self.running:
                break
            done = self.wait()
            if done is not None:
                self.finish(done)
            del done  # or it would hold its outputs while we wait
        self.outcome.cancelled = self.outcome.cancelled or self.stop.cancel.is_set()
        self.outcome.values = {k: v for k, v in self.values.items() if k in self.keep}
        return self.outcome

    def load(self, step: Step) -> None:
        try:
            found = self.runtime.store.get(step.key)
        except StoreError:
            found = MISS
        if found is MISS:
            raise LostValue(step.key)
        self.values[step.key] = found
        self.emit(CacheHit(step.name, step.use, step.key))

    def spec(self, step: Step) -> NodeSpec:
        spec = self.specs.get(step.use)
        if spec is None:
            id, _, version = step.use.partition("@")
            spec = self.runtime.registry.node(id, int(version))
            assert spec is not None
            self.specs[step.use] = spec
        return spec

    def push(self, step: Step) -> None:
        heapq.heappush(self.ready[self.spec(step).device], (self.order[step.key], step))

    def start_ready(self) -> None:
        """Start what may start now: in order, but what waits for the device holds up nothing else."""
        if self.stop.is_set():
            self.skip_ready()
            return
        while len(self.running) < self.workers:
            if self.running and self.live_bytes > self.settings.memory_limit:
                return
            heaps = [self.ready[False]] if self.device_busy >= self.settings.device_slots else self.ready.values()
            first = min((heap for heap in heaps if heap), default=None, key=lambda heap: heap[0][0])
            if first is None:
                return
            self.start(heapq.heappop(first)[1])

    def skip_ready(self) -> None:
        because = "the run was cancelled" if self.outcome.cancelled or self.stop.cancel.is_set() else ""
        for heap in self.ready.values():
            while heap:
                step = heapq.heappop(heap)[1]
                self.skip(step, because or "the run stops at the first failure")
                self.settle(step)

    def start(self, step: Step) -> None:
        spec = self.spec(step)
        services = StepServices(step, spec, self.runtime, self.stop, self.emit, self.warn_of_store)
        self.running[step.key] = services
        self.device_busy += spec.device
        if len(self.threads) - len(self.outcome.stuck) < len(self.running):
            thread = threading.Thread(target=self.work, name=f"mezzotint-{len(self.threads)}", daemon=True)
            self.threads.append(thread)
            thread.start()
        self.tasks.put(services)

    def wait(self) -> _Done | None:
        """The next finished step, or None when some were given up on."""
        try:
            return self.results.get(timeout=self.patience())
        except queue.Empty:
            self.give_up_on_stuck()
            return None

    def patience(self) -> float | None:
        now = time.monotonic()
        # One that has not begun is looked at again when it could have ended.
        deadlines = [s.deadline or now + s.limit for s in self.running.values() if s.limit]
        if not deadlines:
            return None
        return max(0.01, min(deadlines) + self.settings.grace - now)

    def give_up_on_stuck(self) -> None:
        now = time.monotonic()
        for services in list(self.running.values()):
            if services.deadline is None or now < services.deadline + self.settings.grace:
                continue
            step = services.step
            self.no_longer_running(step)
            self.outcome.stuck.append(step.name)
            grace = f"{self.settings.grace:g} s"
            self.fail(step, NodeTimeout(f"node {step.name!r} ran out of time and did not stop within {grace}"))
            self.settle(step)

    def no_longer_running(self, step: Step) -> None:
        services = self.running.pop(step.key)
        self.device_busy -= services.spec.device

    def finish(self, done: _Done) -> None:
        step = done.step
        if step.key not in self.running:  # given up on earlier: too late
            return
        self.no_longer_running(step)
        if isinstance(done.error, Evicted) and self.loaded.intersection(step.needs):
            raise LostValue(*self.loaded.intersection(step.needs))
        if done.error is not None:
            self.fail(step, done.error)
        elif done.outputs is not None:
            self.keep_outputs(step, done, done.outputs)
        self.settle(step)

    def keep_outputs(self, step: Step, done: _Done, outputs: Mapping[str, Any]) -> None:
        self.outcome.seconds[step.key] = done.seconds
        self.outcome.sizes[step.key] = done.size
        if self.uses.get(step.key) or step.key in self.keep:
            self.values[step.key] = outputs
            self.weigh(step.key, done.size)
        self.emit(NodeFinished(step.name, step.use, step.key, done.seconds, done.size))

    def weigh(self, key: str, size: int) -> None:
        self.live_bytes += size - self.sizes.get(key, 0)
        self.sizes[key] = size

    def settle(self, step: Step) -> None:
        """Free what the step was the last to need, and see who may start now. Who needs a dead one is dead too."""
        settled = [step]
        while settled:
            step = settled.pop()
            self.release(step)
            for user in self.users.get(step.key, ()):
                self.waiting[user.key] -= 1
                if self.waiting[user.key]:
                    continue
                because = next((self.dead[k] for k in user.needs if k in self.dead), "")
                if because:
                    self.skip(user, because)
                    settled.append(user)
                else:
                    self.push(user)

    def release(self, step: Step) -> None:
        for key in step.needs:
            self.uses[key] -= 1
            if not self.uses[key] and key not in self.keep:
                self.values.pop(key, None)
                self.live_bytes -= self.sizes.pop(key, 0)
            elif key in self.loaded and key in self.values:
                self.weigh(key, sum(value_bytes(v) for v in self.values[key].values()))  # touched by now

    def fail(self, step: Step, error: BaseException) -> None:
        if isinstance(error, Cancelled) and not isinstance(error, NodeTimeout):
            if not self.stop.is_set():  # the node, or a hook, wants it so
                self.outcome.cancelled = True
                self.stop.halt.set()
            cancelled = self.outcome.cancelled or self.stop.cancel.is_set()
            self.skip(step, "the run was cancelled" if cancelled else "the run stops at the first failure")
            return
        _forget_locals(error)
        wrapped = NodeError(step.name, step.use, error)
        wrapped.__cause__ = error
        self.outcome.failures[step.name] = wrapped
        self.dead[step.key] = f"{step.name} failed"
        try:
            self.runtime.registry.hooks.node_error(name=step.name, use=step.use, error=error)
        except MezzotintError as failed:
            self.emit(Warned(str(failed)))
        self.emit(NodeFailed(step.name, step.use, str(wrapped), error))
        if self.settings.fail_fast:
            self.stop.halt.set()

    def skip(self, step: Step, because: str) -> None:
        self.dead[step.key] = because
        self.outcome.skipped.append(step.name)
        self.emit(NodeSkipped(step.name, step.use, because))

    def end_threads(self) -> None:
        """Let the workers go. One that still computes gets the grace to notice; a stuck one is left behind."""
        for _ in self.threads:
            self.tasks.put(None)
        if not self.outcome.stuck:
            until = time.monotonic() + self.settings.grace
            for thread in self.threads:
                thread.join(max(0.0, until - time.monotonic()))

    # --- the workers ---

    def work(self) -> None:
        while (services := self.tasks.get()) is not None:
            self.results.put(self.run_step(services))
            del services  # or an idle worker would hold the last step's values

    def run_step(self, services: StepServices) -> _Done:
        """Run one step to its end, retries and all; never raises."""
        step = services.step
        started = time.perf_counter()
        services.begin()
        try:
            self.emit(NodeStarted(step.name, step.use, step.key))
            try:
                outputs = self.attempt(services, self.arguments.of(step, services.spec))
            finally:
                services.close()
            self.arguments.check_files(step)
            seconds = time.perf_counter() - started
            size = sum(value_bytes(v) for v in outputs.values())
            self.put(services, outputs, seconds)
            return _Done(step, outputs, None, seconds, size)
        except BaseException as error:
            return _Done(step, None, error, time.perf_counter() - started)

    def attempt(self, services: StepServices, inputs: Mapping[str, Any]) -> dict[str, Any]:
        step, spec = services.step, services.spec
        hooks = self.runtime.registry.hooks
        transient: tuple[type[BaseException], ...] = (TransientError, *spec.transient)
        tries = 0
        while True:
            tries += 1
            started = time.perf_counter()
            try:
                if services.is_cancelled():
                    raise Cancelled("cancelled")
                hooks.before_node(name=step.name, use=step.use, inputs=inputs)
                outputs = spec.call(Context(services), inputs)
                seconds = time.perf_counter() - started
                hooks.after_node(name=step.name, use=step.use, outputs=outputs, seconds=seconds)
                return outputs
            except Cancelled:
                raise services.cancelled_as() from None
            except transient as error:
                if tries > self.settings.retries:
                    raise
                self.emit(NodeRetried(step.name, step.use, tries, str(error)))
                self.stop.wait(0.1 * 2 ** (tries - 1))

    def put(self, services: StepServices, outputs: Mapping[str, Any], seconds: float) -> None:
        """Keep a finished step. A store that fails costs a warning, not the result."""
        step = services.step
        if not step.cacheable:
            return
        try:
            self.runtime.store.put(step.key, outputs, node=step.use, seconds=seconds)
            if services.has_state:
                self.runtime.store.drop_state(step.key)
        except StoreError as error:
            self.warn_of_store(error)

    def warn_of_store(self, error: StoreError) -> None:
        if not self.store_warned:
            self.store_warned = True
            self.emit(Warned(f"results cannot be kept for later runs: {error}"))


def _forget_locals(error: BaseException | None) -> None:
    """Frames would keep the node's inputs alive for as long as anybody looks at the failure."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def value_bytes(value: Any) -> int:
    """Bytes of the tensors in a value that are in memory now; what still lies in the store does not count."""
    if value is None or isinstance(value, (int, float, str)):
        return 0
    if isinstance(value, Value):
        return sum(value_bytes(v) for v in vars(value).values())
    if isinstance(value, (list, tuple)):
        return sum(value_bytes(v) for v in value)
    if isinstance(value, dict):
        return sum(value_bytes(v) for v in value.values())
    return int(getattr(value, "nbytes", 0) or 0)
