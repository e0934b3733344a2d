"""Execution: what runs beside what, what is freed when, and what a failure, a time-out or a cancellation costs."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from mezzotint.api import LoadedGraph
from mezzotint.context import Context
from mezzotint.errors import Cancelled, NodeTimeout, PluginError, StoreError, TransientError, UserError
from mezzotint.events import Event
from mezzotint.execute import value_bytes
from mezzotint.hookspecs import hookimpl
from mezzotint.nodes import node
from mezzotint.ports import Image, Weights
from mezzotint.runner import RunResult, run_graph
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import MemoryStore


class Bulk:
    """Stands for a tensor: it has bytes, and it can be watched."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


class Pair(NamedTuple):
    first: int
    second: int


@node("t.num")
def num(*, value: int = 0) -> int:
    return value


@node("t.add")
def add(*, a: int, b: int = 0) -> int:
    return a + b


@node("t.any")
def anything(*, value: Any) -> Any:
    return value


@node("t.fail")
def fail(*, value: Any = None, message: str = "no such luck") -> int:
    raise ValueError(message)


@node("t.sleep")
def sleep(*, value: Any = None, seconds: float = 0.05) -> float:
    time.sleep(seconds)
    return seconds


def go(loaded: LoadedGraph, log: Callable[[Event], None] | None = None, **options: Any) -> RunResult:
    """A run whose failures are in the result."""
    inputs = options.pop("inputs", {})
    return run_graph(loaded.graph, inputs, loaded.runtime, on_event=log, **options)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def n(use: str, **inputs: Any) -> tuple[str, dict[str, Any]]:
    return use, inputs


def r(ref: str) -> dict[str, str]:
    return {"ref": ref}


# --- side by side ---


def test_branches_run_side_by_side(kit: SimpleNamespace) -> None:
    meeting = threading.Barrier(2, timeout=20)

    @node("t.meet")
    def meet(*, value: int) -> int:
        meeting.wait()  # breaks unless the other one is there at the same time
        return value

    nodes = {"a": n("t.meet@1", value=1), "b": n("t.meet@1", value=2), "c": n("t.add@1", a=r("a"), b=r("b"))}
    assert kit.graph_of(nodes, {"o": "c"}, meet, add).run().outputs["o"] == 3


@pytest.mark.parametrize("slots", [1, 2])
def test_device_nodes_take_turns(kit: SimpleNamespace, slots: int) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    @node("t.device", device=True)
    def device(*, value: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return value

    runtime = kit.runtime_of(kit.registry_of(device), workers=4, device_slots=slots)
    nodes = {f"n{i}": n("t.device@1", value=i) for i in range(6)}
    kit.graph_of(nodes, {f"o{i}": f"n{i}" for i in range(6)}, runtime=runtime).run()
    assert most[0] == slots


def test_a_busy_device_holds_up_nobody_else(kit: SimpleNamespace) -> None:
    order = []

    @node("t.device", device=True)
    def device(*, value: int) -> int:
        time.sleep(0.1)
        order.append("device")
        return value

    @node("t.host")
    def host(*, value: int) -> int:
        order.append("host")
        return value

    nodes = {f"d{i}": n("t.device@1", value=i) for i in range(3)} | {"h": n("t.host@1", value=9)}
    outputs = {name: name for name in nodes}
    runtime = kit.runtime_of(kit.registry_of(device, host), workers=2)
    kit.graph_of(nodes, outputs, runtime=runtime).run()
    assert order == ["host", "device", "device", "device"]


def test_steps_start_in_the_order_of_the_plan(kit: SimpleNamespace, log: Any) -> None:
    nodes = {f"n{i}": n("t.num@1", value=i) for i in range(20)}
    runtime = kit.runtime_of(kit.registry_of(num), workers=1)
    go(kit.graph_of(nodes, {f"o{i}": f"n{i}" for i in range(20)}, runtime=runtime), log)
    assert [e.node for e in log.of("node_started")] == [f"n{i}" for i in range(20)]


def test_1_000_nodes_side_by_side_on_the_device_take_no_quadratic_time(kit: SimpleNamespace) -> None:
    @node("t.device", device=True)
    def device(*, value: int) -> int:
        return value

    nodes: dict[str, Any] = {f"n{i}": n("t.device@1", value=i) for i in range(1000)}
    nodes["all"] = n("t.any@1", value=[r(f"n{i}") for i in range(1000)])
    loaded = kit.graph_of(nodes, {"o": "all"}, device, anything)
    started = time.process_time()
    assert loaded.run().outputs["o"] == list(range(1000))
    assert time.process_time() - started < 3


# --- memory ---


def bulky(kit: SimpleNamespace, alive: weakref.WeakSet[Bulk], seen: list[int], **settings: Any) -> Runtime:
    @node("t.bulk")
    def bulk(*, value: int = 0, after: Any = None) -> Any:
        seen.append(len(alive))
        made = Bulk(100)
        alive.add(made)
        return made

    @node("t.weigh")
    def weigh(*, value: Any) -> int:
        return value_bytes(value)

    class Forgetful(MemoryStore):
        def put(self, key: str, value: Any, *, node: str = "", seconds: float = 0.0) -> None:
            """Nothing is kept here: what is alive is alive because of the executor."""

    found: Runtime = kit.runtime_of(kit.registry_of(bulk, weigh), Forgetful(), **settings)
    return found


def test_values_are_freed_at_their_last_use(kit: SimpleNamespace) -> None:
    alive: weakref.WeakSet[Bulk] = weakref.WeakSet()
    seen: list[int] = []
    nodes: dict[str, Any] = {"n0": n("t.bulk@1")}
    nodes |= {f"n{i}": n("t.bulk@1", value=i, after=r(f"n{i - 1}")) for i in range(1, 12)}
    result = go(kit.graph_of(nodes, {"o": "n11"}, runtime=bulky(kit, alive, seen)))
    assert max(seen) == 1  # its own input
    assert len(alive) == 1
    assert result.outputs["o"] in alive
    del result
    gc.collect()
    assert not alive


def test_a_value_lives_until_its_last_user_is_done_even_if_that_one_fails(kit: SimpleNamespace) -> None:
    alive: weakref.WeakSet[Bulk] = weakref.WeakSet()
    runtime = bulky(kit, alive, [])
    runtime.registry.add_node(fail, runtime.registry.provenance("t.bulk"))
    nodes = {"a": n("t.bulk@1"), "b": n("t.fail@1", value=[r("a")]), "c": n("t.weigh@1", value=r("a"))}
    result = go(kit.graph_of(nodes, {"o": "b", "p": "c"}, runtime=runtime))
    assert result.outputs["p"] == 100
    gc.collect()
    assert not alive  # a failure's traceback holds no frames with the inputs
    assert "no such luck" in str(result.failures["b"])


def test_no_node_starts_while_too_many_bytes_are_alive(kit: SimpleNamespace) -> None:
    alive: weakref.WeakSet[Bulk] = weakref.WeakSet()
    seen: list[int] = []
    nodes: dict[str, Any] = {}
    for i in range(8):
        nodes[f"a{i}"] = n("t.bulk@1", value=i)
        nodes[f"b{i}"] = n("t.weigh@1", value=[r(f"a{i}")])
    outputs = {f"o{i}": f"b{i}" for i in range(8)}
    go(kit.graph_of(nodes, outputs, runtime=bulky(kit, alive, seen, workers=4, memory_limit=250)))
    assert max(seen) <= 4  # up to the limit, and what runs by then; without it all eight


def test_a_graph_that_needs_more_than_the_limit_still_runs(kit: SimpleNamespace) -> None:
    alive: weakref.WeakSet[Bulk] = weakref.WeakSet()
    nodes: dict[str, Any] = {f"a{i}": n("t.bulk@1", value=i) for i in range(6)}
    nodes["all"] = n("t.weigh@1", value=[r(f"a{i}") for i in range(6)])
    runtime = bulky(kit, alive, [], workers=4, memory_limit=0)
    assert kit.graph_of(nodes, {"o": "all"}, runtime=runtime).run().outputs["o"] == 600


def test_bytes_are_counted_through_values_lists_and_dicts() -> None:
    value = {"a": [Weights({"w": Bulk(5)}), (Bulk(7),)], "b": "text", "c": None, "d": 1.5}
    assert value_bytes(value) == 12


# --- failures ---


def test_a_failed_branch_leaves_the_others_running(kit: SimpleNamespace, log: Any) -> None:
    nodes = {
        "bad": n("t.fail@1"),
        "after": n("t.any@1", value=r("bad")),
        "later": n("t.any@1", value=[r("after"), r("good")]),
        "good": n("t.num@1", value=3),
    }
    result = go(kit.graph_of(nodes, {"x": "later", "y": "good"}, fail, anything, num), log)
    assert result.status == "failed"
    assert dict(result.outputs) == {"y": 3}
    assert result.skipped == ("after", "later")
    assert str(result.failures["bad"]) == "node 'bad' (t.fail@1) failed: ValueError: no such luck"
    assert {(e.node, e.because) for e in log.of("node_skipped")} == {
        ("after", "bad failed"), ("later", "bad failed"),
    }  # fmt: skip
    with pytest.raises(KeyError, match="'x' was not made"):
        result.outputs["x"]
    with pytest.raises(type(result.failures["bad"])):
        result.check()


def test_fail_fast_stops_the_rest_without_touching_the_callers_event(kit: SimpleNamespace, log: Any) -> None:
    runtime = kit.runtime_of(kit.registry_of(fail, num), workers=1, fail_fast=True)
    nodes = {"bad": n("t.fail@1")} | {f"n{i}": n("t.num@1", value=i) for i in range(5)}
    cancel = threading.Event()
    result = go(kit.graph_of(nodes, {name: name for name in nodes}, runtime=runtime), log, cancel=cancel)
    assert result.status == "failed"
    assert len(result.skipped) == 5
    assert not cancel.is_set()
    assert {e.because for e in log.of("node_skipped")} == {"the run stops at the first failure"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError("full"), GeneratorExit()])
def test_whatever_a_node_raises_is_that_nodes_failure(kit: SimpleNamespace, error: BaseException) -> None:
    @node("t.raise")
    def raising() -> int:
        raise error

    nodes = {"a": n("t.raise@1"), "b": n("t.num@1", value=1)}
    result = go(kit.graph_of(nodes, {"x": "a", "y": "b"}, raising, num))
    assert type(error).__name__ in str(result.failures["a"])
    assert result.outputs["y"] == 1


def test_what_a_node_returns_is_checked(kit: SimpleNamespace) -> None:
    @node("t.wrong")
    def wrong() -> Image:
        return 5  # type: ignore[return-value]

    @node("t.short")
    def short() -> Pair:
        return (1, 2)  # type: ignore[return-value]

    @node("t.nothing")
    def nothing() -> Image:
        return None  # type: ignore[return-value]

    @node("t.word")
    def word() -> int:
        return "5"  # type: ignore[return-value]

    @node("t.mixed")
    def mixed() -> list[Image]:
        return [Image(Bulk(1)), 5]  # type: ignore[list-item]

    nodes = {name: n(f"t.{name}@1") for name in ("wrong", "short", "nothing", "word", "mixed")}
    outputs = {"wrong": "wrong", "short": "short.first", "nothing": "nothing", "word": "word", "mixed": "mixed"}
    result = go(kit.graph_of(nodes, outputs, wrong, short, nothing, word, mixed))
    messages = {name: str(error) for name, error in result.failures.items()}
    assert "returned int for output 'image', wanted Image" in messages["wrong"]
    assert "returned tuple, wanted a NamedTuple of first, second" in messages["short"]
    assert "returned NoneType for output 'image', wanted Image" in messages["nothing"]
    assert "returned str for output 'value', wanted integer" in messages["word"]
    assert "returned list for output 'images', wanted list of Image" in messages["mixed"]


@pytest.mark.parametrize(
    ("value", "wanted", "message"),
    [
        ("5", "t.num@1", "input 'value': input should be a valid integer, got 5"),
        (True, "t.num@1", "valid integer"),
        (None, "t.num@1", "valid integer"),
        ([1, "2"], "t.pair@1", r"input 'value'\[1\]: input should be a valid integer, got 2"),
        (5, "t.image@1", "input 'image' got the wrong type: integer, wanted Image"),
        ([5], "t.images@1", "input 'images' got the wrong type: integer, wanted Image"),
        (5, "t.images@1", "input 'images' got the wrong type: integer, wanted list of Image"),
        ("x.png", "t.file@1", "input 'value' is a file: it is written in the graph or given to it"),
    ],
)
def test_what_a_node_is_given_is_checked_where_types_could_not_tell(
    kit: SimpleNamespace, value: Any, wanted: str, message: str
) -> None:
    @node("t.pair")
    def pair(*, value: tuple[int, int]) -> int:
        return 0

    @node("t.image")
    def image(image: Image) -> int:
        return 0

    @node("t.images")
    def images(images: list[Image]) -> int:
        return 0

    @node("t.file")
    def file(*, value: Path) -> int:
        return 0

    name = "value" if wanted in ("t.num@1", "t.pair@1", "t.file@1") else wanted[2:-2]
    nodes = {"a": n("t.any@1", value=value), "b": n(wanted, **{name: r("a")})}
    result = go(kit.graph_of(nodes, {"o": "b"}, anything, num, pair, image, images, file))
    with pytest.raises(Exception, match=message):
        result.check()


def test_arguments_are_of_the_kind_that_the_function_asks_for(kit: SimpleNamespace) -> None:
    seen: dict[str, Any] = {}

    @node("t.kinds")
    def kinds(
        images: tuple[Image, ...] = (),
        *,
        pair: tuple[int, int] = (1, 2),
        deep: list[tuple[int, ...]] = [],  # noqa: B006
        table: dict[str, Any] = {},  # noqa: B006
        number: float = 0,
        files: tuple[Path, ...] = (),
    ) -> int:
        seen.update(images=images, pair=pair, deep=deep, table=table, number=number, files=files)
        return 0

    @node("t.image")
    def image() -> Image:
        return Image(Bulk(1))

    nodes = {
        "i": n("t.image@1"),
        "one": n("t.num@1", value=1),
        "k": n("t.kinds@1", images=[r("i")], pair=[r("one"), 3], deep=[[1, r("one")]], table={"a": r("i")},
               number=r("one")),
    }  # fmt: skip
    kit.graph_of(nodes, {"o": "k"}, image, num, kinds).run()
    assert isinstance(seen["images"], tuple)
    assert isinstance(seen["images"][0], Image)
    assert (seen["pair"], seen["deep"], seen["files"]) == ((1, 3), [(1, 1)], ())
    assert isinstance(seen["table"]["a"], Image)
    assert repr(seen["number"]) == "1.0"
    kit.graph_of({"k": n("t.kinds@1")}, {"o": "k"}, kinds).run()
    assert (seen["pair"], seen["images"], repr(seen["number"])) == ((1, 2), (), "0.0")


def test_objects_reach_a_node_in_one_order_whatever_the_graphs(kit: SimpleNamespace) -> None:
    @node("t.order")
    def order(*, value: dict[str, Any]) -> list[str]:
        return [*value, *value["a"]]

    nodes = {"x": n("t.order@1", value={"b": 1, "a": {"z": 1, "y": 2}})}
    assert kit.graph_of(nodes, {"o": "x"}, order).run().outputs["o"] == ["a", "b", "y", "z"]


def test_transient_failures_are_tried_again_and_others_are_not(kit: SimpleNamespace, log: Any) -> None:
    tries: dict[str, int] = {}

    def flaky(name: str, error: BaseException, until: int) -> int:
        tries[name] = tries.get(name, 0) + 1
        if tries[name] <= until:
            raise error
        return tries[name]

    @node("t.flaky")
    def mine(*, until: int) -> int:
        return flaky(f"mine{until}", TransientError("busy"), until)

    @node("t.marked", transient=(ConnectionError,))
    def marked() -> int:
        return flaky("marked", ConnectionResetError("reset"), 1)

    @node("t.unmarked")
    def unmarked() -> int:
        return flaky("unmarked", ConnectionResetError("reset"), 1)

    nodes = {
        "a": n("t.flaky@1", until=2),
        "b": n("t.flaky@1", until=9),
        "c": n("t.marked@1"),
        "d": n("t.unmarked@1"),
    }
    result = go(kit.graph_of(nodes, {k: k for k in nodes}, mine, marked, unmarked), log)
    assert dict(result.outputs) == {"a": 3, "c": 2}
    assert set(result.failures) == {"b", "d"}
    assert tries == {"mine2": 3, "mine9": 3, "marked": 2, "unmarked": 1}
    assert [e.attempt for e in log.of("node_retried") if e.node == "a"] == [1, 2]


# --- time-outs ---


@pytest.mark.parametrize("source", ["settings", "node"])
def test_a_node_that_reports_progress_ends_soon_after_its_time(kit: SimpleNamespace, source: str) -> None:
    @node("t.slow", timeout=0.1 if source == "node" else None)
    def slow(ctx: Context) -> int:
        for i in range(2000):
            time.sleep(0.01)
            ctx.progress(i, 2000)
        return 0

    settings = {"timeout": 0.1} if source == "settings" else {}
    runtime = kit.runtime_of(kit.registry_of(slow, num), **settings)
    with deadline(30):
        result = go(kit.graph_of({"a": n("t.slow@1"), "b": n("t.num@1")}, {"a": "a", "b": "b"}, runtime=runtime))
    assert isinstance(result.failures["a"].cause, NodeTimeout)
    assert result.status == "failed"
    assert not result.stuck
    assert result.outputs["b"] == 0


def test_a_node_that_ignores_its_time_is_given_up_on_and_all_else_is_done(kit: SimpleNamespace, log: Any) -> None:
    over = threading.Event()

    @node("t.stuck", timeout=0.1, device=True)
    def stuck() -> int:
        over.wait(60)
        return 0

    @node("t.device", device=True)
    def device(*, value: int) -> int:
        return value

    runtime = kit.runtime_of(kit.registry_of(stuck, device, num, anything), workers=1, grace=0.2)
    nodes = {
        "s": n("t.stuck@1"), "after": n("t.any@1", value=r("s")), "later": n("t.any@1", value=[r("after")]),
        "x": n("t.num@1", value=1), "d": n("t.device@1", value=2),
    }  # fmt: skip
    try:
        with deadline(30):
            result = go(kit.graph_of(nodes, {k: k for k in nodes}, runtime=runtime), log)
    finally:
        over.set()
    assert result.stuck == ("s",)
    assert "did not stop within 0.2 s" in str(result.failures["s"])
    assert dict(result.outputs) == {"x": 1, "d": 2}
    assert result.skipped == ("after", "later")
    told = len(log.events)
    time.sleep(0.2)
    assert len(log.events) == told  # what the stuck one still does is no event of this run


def test_a_stuck_node_that_comes_back_late_does_no_harm(kit: SimpleNamespace) -> None:
    given_up, back = threading.Event(), threading.Event()

    @node("t.late", timeout=0.05)
    def late() -> int:
        given_up.wait(30)
        threading.Timer(0.1, back.set).start()
        return 7

    @node("t.patient")
    def patient() -> bool:
        return back.wait(30)

    def listen(event: Event) -> None:
        if event.kind == "node_failed":
            given_up.set()

    runtime = kit.runtime_of(kit.registry_of(late, patient, anything), workers=2, grace=0.05)
    nodes = {"s": n("t.late@1"), "after": n("t.any@1", value=r("s")), "x": n("t.patient@1")}
    result = go(kit.graph_of(nodes, {k: k for k in nodes}, runtime=runtime), listen)
    assert result.stuck == ("s",)
    assert dict(result.outputs) == {"x": True}
    assert result.skipped == ("after",)


def test_a_retry_stops_when_the_time_is_up(kit: SimpleNamespace) -> None:
    @node("t.busy", timeout=0.15)
    def busy() -> int:
        raise TransientError("busy")

    runtime = kit.runtime_of(kit.registry_of(busy), retries=1000)
    with deadline(30):
        result = go(kit.graph_of({"a": n("t.busy@1")}, {"o": "a"}, runtime=runtime))
    assert isinstance(result.failures["a"].cause, NodeTimeout)


# --- cancelling ---


def test_a_cancelled_run_stops_at_the_next_progress_and_keeps_what_is_finished(kit: SimpleNamespace) -> None:
    cancel, steps = threading.Event(), []

    @node("t.long")
    def long(ctx: Context, *, value: int) -> int:
        for i in range(1000):
            steps.append(i)
            if i == 3:
                cancel.set()
            ctx.progress(i, 1000)
        return 0

    nodes = {"a": n("t.num@1", value=5), "b": n("t.long@1", value=r("a")), "c": n("t.add@1", a=r("b"))}
    loaded = kit.graph_of(nodes, {"x": "a", "y": "c"}, num, long, add)
    result = go(loaded, cancel=cancel)
    assert result.status == "cancelled"
    assert steps == [0, 1, 2, 3]
    assert dict(result.outputs) == {"x": 5}
    assert set(result.skipped) == {"b", "c"}
    with pytest.raises(Cancelled):
        result.check()
    assert go(loaded, cancel=cancel).steps_cached == 1


def test_a_run_cancelled_before_it_begins_runs_nothing(kit: SimpleNamespace) -> None:
    cancel = threading.Event()
    cancel.set()
    result = go(kit.graph_of({"a": n("t.num@1")}, {"o": "a"}, num), cancel=cancel)
    assert (result.status, result.skipped, result.steps_run) == ("cancelled", ("a",), 0)


def test_a_run_that_was_done_when_it_was_cancelled_is_done(kit: SimpleNamespace) -> None:
    cancel = threading.Event()

    @node("t.last")
    def last() -> int:
        cancel.set()
        return 1

    assert go(kit.graph_of({"a": n("t.last@1")}, {"o": "a"}, last), cancel=cancel).status == "done"


def test_a_node_that_looks_for_itself_sees_the_cancelling(kit: SimpleNamespace) -> None:
    cancel, started = threading.Event(), threading.Event()

    @node("t.poll")
    def poll(ctx: Context) -> int:
        started.set()
        while not ctx.cancelled:
            time.sleep(0.005)
        ctx.check_cancelled()
        return 0

    threading.Thread(target=lambda: started.wait(20) and cancel.set()).start()
    with deadline(30):
        assert go(kit.graph_of({"a": n("t.poll@1")}, {"o": "a"}, poll), cancel=cancel).status == "cancelled"


def test_an_interrupt_in_the_calling_thread_ends_the_workers(kit: SimpleNamespace) -> None:
    ended = threading.Event()

    @node("t.poll")
    def poll(ctx: Context) -> int:
        try:
            for i in range(2000):
                time.sleep(0.005)
                ctx.progress(i, 2000)
        finally:
            ended.set()
        return 0

    def interrupt(event: Event) -> None:
        if event.kind == "node_finished":
            raise KeyboardInterrupt

    nodes = {"a": n("t.poll@1"), "b": n("t.sleep@1")}
    with deadline(30), pytest.raises(KeyboardInterrupt):
        go(kit.graph_of(nodes, {"x": "a", "y": "b"}, poll, sleep), interrupt)
    assert ended.is_set()


# --- hooks and listeners ---


def hooked(kit: SimpleNamespace, **hooks: Callable[..., Any]) -> LoadedGraph:
    registry = kit.registry_of(num, fail, **{name: hookimpl(fn) for name, fn in hooks.items()})
    found: LoadedGraph = kit.graph_of(
        {"a": n("t.num@1", value=1), "b": n("t.fail@1")}, {"x": "a", "y": "b"}, runtime=kit.runtime_of(registry)
    )
    return found


def test_hooks_see_each_node_and_each_failure(kit: SimpleNamespace) -> None:
    seen = []

    def before_node(name: str, use: str, inputs: dict[str, Any]) -> None:
        seen.append(("before", name, use, dict(inputs)))

    def after_node(name: str, outputs: dict[str, Any], seconds: float) -> None:
        seen.append(("after", name, dict(outputs), seconds >= 0))

    def node_error(name: str, error: BaseException) -> None:
        seen.append(("error", name, str(error)))

    go(hooked(kit, before_node=before_node, after_node=after_node, node_error=node_error))
    assert ("before", "a", "t.num@1", {"value": 1}) in seen
    assert ("after", "a", {"value": 1}, True) in seen
    assert ("error", "b", "no such luck") in seen
    assert len(seen) == 4


@pytest.mark.parametrize("hook", ["before_node", "after_node", "node_error"])
@pytest.mark.parametrize("strict", ["", "1"])
def test_a_hook_that_fails_does_not_hang_the_run(
    kit: SimpleNamespace, hook: str, strict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("hook")

    loaded = hooked(kit, **{hook: broken})
    monkeypatch.setenv("MEZZOTINT_STRICT_PLUGINS", strict)
    with deadline(30):
        result = go(loaded)
    if hook == "node_error" or not strict:
        assert dict(result.outputs) == {"x": 1}
    else:
        assert isinstance(result.failures["a"].cause, PluginError)
    assert "no such luck" in str(result.failures["b"]) or strict


def test_a_hook_may_cancel_the_run(kit: SimpleNamespace) -> None:
    def before_node(name: str) -> None:
        raise Cancelled("enough")

    result = go(hooked(kit, before_node=before_node))
    assert result.status == "cancelled"
    assert set(result.skipped) == {"a", "b"}


@pytest.mark.parametrize("kind", ["run_started", "node_started", "node_finished", "step_done", "run_finished"])
def test_a_listener_that_fails_is_left_alone_and_the_run_goes_on(
    kit: SimpleNamespace, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def listen(event: Event) -> None:
        calls.append(event)
        if event.kind == kind:
            raise BrokenPipeError("nobody reads")

    @node("t.stepping")
    def stepping(ctx: Context) -> int:
        ctx.progress(1, 2)
        return 4

    with deadline(30):
        assert go(kit.graph_of({"a": n("t.stepping@1")}, {"o": "a"}, stepping), listen).outputs["o"] == 4
    assert calls[-1].kind == kind
    assert "nobody reads" in caplog.text


def test_events_come_one_at_a_time(kit: SimpleNamespace) -> None:
    inside = [0]

    def listen(event: Event) -> None:
        inside[0] += 1
        assert inside[0] == 1
        time.sleep(0.001)
        inside[0] -= 1

    nodes = {f"n{i}": n("t.num@1", value=i) for i in range(30)}
    runtime = kit.runtime_of(kit.registry_of(num), workers=4)
    assert go(kit.graph_of(nodes, {k: k for k in nodes}, runtime=runtime), listen).ok
    assert inside[0] == 0


def test_a_model_that_cannot_be_given_back_is_a_failure_and_no_hang(
    kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(self: Any) -> None:
        raise RuntimeError("a patch could not be taken off")

    monkeypatch.setattr("mezzotint.services.StepServices.close", close)
    with deadline(30):
        result = go(kit.graph_of({"a": n("t.num@1")}, {"o": "a"}, num))
    assert "could not be taken off" in str(result.failures["a"])


# --- the store ---


class FailingStore(MemoryStore):
    """A store on a full disk. fails: the methods that fail."""

    def __init__(self, *fails: str) -> None:
        super().__init__()
        for name in fails:
            setattr(self, name, self._fail)

    def _fail(self, *args: Any, **kwargs: Any) -> Any:
        raise StoreError("no space left on device")


@pytest.mark.parametrize(
    "fails",
    ["put", "put_bytes", "get", "contains_many", "pin", "flush", "save_state", "load_state", "drop_state",
     "recall_file", "remember_file", "all"],
)  # fmt: skip
def test_a_store_that_fails_costs_a_warning_and_nothing_else(
    kit: SimpleNamespace, fails: str, log: Any, tmp_path: Path
) -> None:
    every = ("put", "put_bytes", "get", "contains_many", "pin", "flush", "save_state", "load_state", "drop_state")
    store = FailingStore(*(every if fails == "all" else (fails,)))

    @node("t.stepping")
    def stepping(ctx: Context, *, value: int) -> int:
        state = ctx.resume() or {"i": 0}
        ctx.save_state({"i": state["i"] + 1})
        return value

    @node("t.file")
    def file(*, path: Path) -> str:
        return path.read_text()

    (tmp_path / "f").write_text("f")
    nodes = {
        "a": n("t.num@1", value=1),
        "b": n("t.stepping@1", value=r("a")),
        "c": n("t.file@1", path=r("inputs.p")),
    }
    runtime = kit.runtime_of(kit.registry_of(num, stepping, file), store)
    loaded = kit.graph_of(nodes, {"o": "b", "p": "c"}, inputs={"p": {"type": "string"}}, runtime=runtime)
    for i in range(2):
        result = go(loaded, log, out=tmp_path / f"out{i}", inputs={"p": str(tmp_path / "f")})
        assert dict(result.outputs) == {"o": 1, "p": "f"}
        assert len(result.files) == 2
        assert result.ok
    if fails not in ("load_state", "drop_state", "get", "recall_file", "remember_file"):
        assert {e.message for e in log.of("warned")} == {
            "results cannot be kept for later runs: no space left on device"
        }
    assert len(log.of("warned")) <= 2


def test_a_value_that_cannot_be_stored_is_its_nodes_failure(kit: SimpleNamespace, store: Any) -> None:
    @node("t.odd")
    def odd() -> Any:
        return object()

    runtime = kit.runtime_of(kit.registry_of(odd, num), store)
    result = go(kit.graph_of({"a": n("t.odd@1"), "b": n("t.num@1")}, {"x": "a", "y": "b"}, runtime=runtime))
    assert isinstance(result.failures["a"].cause, PluginError)
    assert result.outputs["y"] == 0


def test_a_file_that_changes_under_a_run_spoils_no_key(kit: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("planned")

    @node("t.file")
    def file(*, path: Path, wait: int = 0) -> str:
        text = path.read_text()
        if text == "planned":
            path.write_text("changed meanwhile")
        return text

    loaded = kit.graph_of(
        {"a": n("t.file@1", path=r("inputs.p")), "b": n("t.any@1", value=[r("a")])}, {"o": "b"}, file, anything,
        inputs={"p": {"type": "string"}},
    )  # fmt: skip
    result = go(loaded, inputs={"p": str(path)})
    assert isinstance(result.failures["a"].cause, UserError)
    assert "has changed since the run was planned; run again" in str(result.failures["a"])
    assert go(loaded, inputs={"p": str(path)}).outputs["o"] == ["changed meanwhile"]


@pytest.mark.parametrize(
    "wrong",
    [{"workers": -1}, {"device_slots": 0}, {"retries": -1}, {"grace": -1}, {"timeout": 0}, {"dtype": "int8"}],
)
def test_settings_that_could_not_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Settings(**wrong)
