"""Mezzotint from Python: load, run, await, cancel."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mezzotint.api import load
from mezzotint.context import Context
from mezzotint.errors import Cancelled, GraphError, NodeError, UserError
from mezzotint.nodes import node
from mezzotint.runtime import Runtime


@node("t.num")
def num(*, value: int = 0) -> int:
    return value


@node("t.fail")
def fail() -> int:
    raise ValueError("no such luck")


@node("t.long")
def long(ctx: Context) -> int:
    for i in range(2000):
        time.sleep(0.005)
        ctx.progress(i, 2000)
    return 0


@pytest.fixture
def runtime(kit: SimpleNamespace) -> Runtime:
    found: Runtime = kit.runtime_of(kit.registry_of(num, fail, long))
    return found


def doc(use: str = "t.num@1", **inputs: Any) -> dict[str, Any]:
    declared = {"x": {"type": "integer", "default": 1}}
    return {
        "format": 1, "inputs": declared, "nodes": {"a": {"use": use, "inputs": inputs}},
        "outputs": {"o": {"ref": "a"}, "x": {"ref": "inputs.x"}},
    }  # fmt: skip


def test_a_graph_is_loaded_from_a_file_a_path_or_a_dict(runtime: Runtime, tmp_path: Path) -> None:
    data = doc(value={"ref": "inputs.x"})
    (tmp_path / "g.json").write_text(json.dumps(data))
    for source in (data, tmp_path / "g.json", str(tmp_path / "g.json")):
        assert dict(load(source, runtime=runtime).run(x=4).outputs) == {"o": 4, "x": 4}


def test_a_loaded_graph_does_not_change_with_the_dict_that_it_came_from(runtime: Runtime) -> None:
    data = doc(value=3)
    loaded = load(data, runtime=runtime)
    data["nodes"]["a"]["inputs"]["value"] = 5
    data["nodes"]["b"] = {"use": "no"}
    assert loaded.run().outputs["o"] == 3
    assert loaded.graph.doc.nodes["a"].inputs == {"value": 3}


@pytest.mark.parametrize(
    "value",
    [float("nan"), object(), {1, 2}, b"x", 10**5000, "\ud800"],
    ids=["nan", "object", "set", "bytes", "int", "str"],
)
def test_a_dict_that_is_no_json_is_refused(runtime: Runtime, value: Any) -> None:
    with pytest.raises(GraphError):
        load({**doc(), "ui": value}, runtime=runtime)


def test_a_dict_that_contains_itself_is_refused(runtime: Runtime) -> None:
    data = doc()
    data["ui"] = data
    with pytest.raises(GraphError):
        load(data, runtime=runtime)


def test_a_graph_error_carries_every_problem(runtime: Runtime) -> None:
    with pytest.raises(GraphError) as caught:
        load({**doc("t.nun@1"), "outputs": {"o": {"ref": "b"}}}, runtime=runtime)
    assert [(p.pointer, p.code) for p in caught.value.problems if p.severity == "error"] == [
        ("/nodes/a/use", "unknown_node"), ("/outputs/o/ref", "bad_link"),
    ]  # fmt: skip
    assert str(caught.value).count("\n") == 2
    with pytest.raises(GraphError) as caught:
        load(doc(), runtime=runtime).run(x="5", y=1)
    assert {p.code for p in caught.value.problems} == {"bad_value", "unknown_input"}


def test_a_missing_file_is_a_user_error(runtime: Runtime) -> None:
    with pytest.raises(UserError, match="there is no file"):
        load("no/such.json", runtime=runtime)


def test_run_raises_what_failed(runtime: Runtime) -> None:
    with pytest.raises(NodeError, match="no such luck") as caught:
        load(doc("t.fail@1"), runtime=runtime).run()
    assert (caught.value.node, caught.value.use) == ("a", "t.fail@1")
    assert isinstance(caught.value.__cause__, ValueError)


def test_run_writes_files_and_records_only_where_it_is_told(runtime: Runtime, tmp_path: Path) -> None:
    loaded = load(doc(), runtime=runtime)
    assert loaded.run().files == ()
    result = loaded.run(out=str(tmp_path / "out"), runs=tmp_path / "runs")
    assert {f.output for f in result.files} == {"o", "x"}
    assert (tmp_path / "runs" / result.run / "run.json").is_file()


def test_arun_gives_what_run_gives(runtime: Runtime) -> None:
    async def both() -> list[int]:
        loaded = load(doc(value={"ref": "inputs.x"}), runtime=runtime)
        return [result.outputs["o"] for result in await asyncio.gather(*(loaded.arun(x=i) for i in range(5)))]

    assert asyncio.run(both()) == [0, 1, 2, 3, 4]


def test_arun_raises_what_failed(runtime: Runtime) -> None:
    async def failing() -> None:
        await load(doc("t.fail@1"), runtime=runtime).arun()

    with pytest.raises(NodeError, match="no such luck"):
        asyncio.run(failing())


@pytest.mark.parametrize("use", ["t.long@1", "t.fail@1"])
def test_cancelling_the_task_stops_the_run_before_the_task_ends(runtime: Runtime, use: str) -> None:
    events: list[str] = []

    async def cancelled() -> None:
        started = threading.Event()

        def listen(event: Any) -> None:
            events.append(event.kind)
            if event.kind == "node_started":
                started.set()
                if use == "t.fail@1":
                    time.sleep(0.2)  # the task is cancelled by the time the node fails

        loop = asyncio.get_running_loop()
        task = asyncio.create_task(load(doc(use), runtime=runtime).arun(on_event=listen))
        await loop.run_in_executor(None, started.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begun = time.monotonic()
    asyncio.run(cancelled(), debug=True)
    assert events[-1] == "run_finished"
    assert time.monotonic() - begun < 8


def test_the_callers_event_cancels(runtime: Runtime) -> None:
    cancel = threading.Event()

    def listen(event: Any) -> None:
        if event.kind == "step_done":
            cancel.set()

    with pytest.raises(Cancelled, match="the run was cancelled"):
        load(doc("t.long@1"), runtime=runtime).run(cancel=cancel, on_event=listen)
