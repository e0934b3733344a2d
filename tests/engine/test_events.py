"""Events: one JSON object each, whatever is in them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from mezzotint import events
from mezzotint.context import Context
from mezzotint.nodes import node


@node("t.steps")
def steps(ctx: Context, *, value: int = 0) -> int:
    for i in range(2):
        ctx.progress(i + 1, 2, preview=lambda: object())
    return value


@node("t.fail")
def fail() -> int:
    raise ValueError("no such luck")


EVENTS = [getattr(events, name) for name in events.__all__ if name != "Event"]


@pytest.mark.parametrize("event", EVENTS)
def test_kinds_are_words_and_no_two_are_the_same(event: type[events.Event]) -> None:
    assert event.kind.replace("_", "").islower()
    assert [e.kind for e in EVENTS].count(event.kind) == 1


def test_a_run_tells_its_story_in_order(kit: SimpleNamespace, log: Any) -> None:
    nodes = {"a": ("t.steps@1", {}), "b": ("t.steps@1", {"value": {"ref": "a"}})}
    kit.graph_of(nodes, {"o": "b"}, steps).run(on_event=log)
    assert log.kinds() == [
        "run_started",
        *("node_started", "step_done", "step_done", "node_finished"),
        *("node_started", "step_done", "step_done", "node_finished"),
        "run_finished",
    ]
    assert log.events[0].steps == 2
    assert log.events[-1].status == "done"
    assert len({log.events[0].run, log.events[-1].run}) == 1


def test_every_event_of_a_run_is_json_and_leaves_out_what_lives_in_this_process(
    kit: SimpleNamespace, log: Any
) -> None:
    loaded = kit.graph_of({"a": ("t.steps@1", {}), "b": ("t.fail@1", {})}, {"o": "a", "p": "b"}, steps, fail)
    with pytest.raises(Exception, match="no such luck"):
        loaded.run(on_event=log)
    for event in log.events:
        data = json.loads(json.dumps(event.to_json()))
        assert data["event"] == event.kind
        assert not {"preview", "error"} & data.keys()
    failed = log.of("node_failed")[0]
    assert isinstance(failed.error, ValueError)
    assert "no such luck" in failed.to_json()["message"]


def test_a_preview_is_only_made_if_somebody_looks() -> None:
    event = events.StepDone("a", 1, 2, lambda: pytest.fail("made"))
    assert event.to_json() == {"event": "step_done", "node": "a", "done": 1, "total": 2}
