"""What a run shows while it runs: plain lines, JSON lines, or nothing but warnings. `progress.py` has the bars."""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Protocol

import click

from mezzotint.cli.failures import say
from mezzotint.errors import MezzotintError
from mezzotint.events import NodeFailed, NodeFinished, NodeRetried, RunStarted, StepDone, Warned

if TYPE_CHECKING:
    from mezzotint.events import Event
    from mezzotint.runner import RunResult

__all__ = ["Display", "JsonLines", "PlainLines", "Quiet", "make_display", "result_json", "summary"]


class Display(Protocol):
    """A view of one command's runs."""

    def event(self, event: Event) -> None: ...
    def item(self, number: int, total: int, label: str) -> None: ...
    def result(self, result: RunResult) -> None: ...
    def close(self) -> None: ...


def make_display(*, as_json: bool, quiet: bool, debug: bool) -> Display:
    """The view that fits where the output goes."""
    if as_json:
        return JsonLines()
    if quiet:
        return Quiet(debug)
    if sys.stderr.isatty():
        from mezzotint.cli.progress import Bars

        return Bars(debug)
    return PlainLines(debug)


def summary(result: RunResult) -> str:
    """The end of a run in one line."""
    parts = [
        f"{result.steps_run} {'step' if result.steps_run == 1 else 'steps'} run",
        f"{result.steps_cached} cached",
    ]
    parts += [f"{len(result.failures)} failed"] if result.failures else []
    parts += [f"{len(result.skipped)} not run"] if result.skipped else []
    return f"{result.status}: {', '.join(parts)}, {took(result.seconds)}"


def took(seconds: float) -> str:
    """`0.42 s`, `3.1 s`, `2 min 5 s`."""
    if seconds >= 100:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"


class Quiet:
    """Only what went wrong, and the paths of the files."""

    def __init__(self, debug: bool = False) -> None:
        self.debug = debug
        self.out = sys.stdout  # nodes that print get stderr in its place

    def event(self, event: Event) -> None:
        if isinstance(event, Warned):
            self.say(f"warning: {event.message}")
        elif isinstance(event, NodeFailed):
            self.say(f"error: {event.message}")
            if event.error is not None and self.debug:
                self.say("".join(traceback.format_exception(event.error)).rstrip())
            elif event.error is not None and not isinstance(event.error, MezzotintError):
                self.say("  --debug shows where in the node")

    def say(self, text: str) -> None:
        say(text)

    def item(self, number: int, total: int, label: str) -> None:
        """A batch goes on to its next item."""

    def result(self, result: RunResult) -> None:
        for file in result.files:
            self.print(str(file.path))

    def print(self, text: str) -> None:
        """One line of what the command gives."""
        click.echo(text, file=self.out)

    def close(self) -> None:
        """Nothing is held."""


class PlainLines(Quiet):
    """Lines for a log: what begins, what long nodes are at, what ended."""

    every = 5.0
    many = 100

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self.shown: dict[str, float] = {}
        self.prefix = ""
        self.steps = 0
        self.finished = 0
        self.counted = 0.0

    def event(self, event: Event) -> None:
        super().event(event)
        if isinstance(event, RunStarted):
            self.steps, self.finished, self.counted = event.steps, 0, time.monotonic()
            self.say(f"{self.prefix}{event.graph}: {event.steps} to run, {event.cached} cached")
        elif isinstance(event, StepDone):
            now = time.monotonic()
            if now - self.shown.setdefault(event.node, now) >= self.every:
                self.shown[event.node] = now
                self.say(f"{self.prefix}{event.node}: {event.done}/{event.total}")
        elif isinstance(event, NodeFinished):
            self.node_finished(event)
        elif isinstance(event, NodeRetried):
            self.say(f"{self.prefix}{event.node}: trying again after: {event.message}")

    def node_finished(self, event: NodeFinished) -> None:
        self.finished += 1
        if self.steps <= self.many or event.seconds >= 1:
            self.say(f"{self.prefix}{event.node}: {took(event.seconds)}")
        elif time.monotonic() - self.counted >= self.every:
            self.counted = time.monotonic()
            self.say(f"{self.prefix}{self.finished} of {self.steps} steps")

    def item(self, number: int, total: int, label: str) -> None:
        self.prefix = f"[{number}/{total}] "
        self.shown.clear()
        self.say(f"{self.prefix}{label}")

    def result(self, result: RunResult) -> None:
        super().result(result)
        self.say(f"{self.prefix}{summary(result)}")


class JsonLines:
    """One JSON object per line on stdout: the events as they come, a result at the end of each run."""

    def __init__(self) -> None:
        self.extra: dict[str, Any] = {}
        self.out = sys.stdout

    def event(self, event: Event) -> None:
        self.line(event.to_json())

    def line(self, data: dict[str, Any]) -> None:
        self.out.write(json.dumps({**data, **self.extra}, default=str) + "\n")
        self.out.flush()

    def item(self, number: int, total: int, label: str) -> None:
        self.extra = {"item": number}
        self.line({"event": "item_started", "of": total, "label": label})

    def result(self, result: RunResult) -> None:
        self.line(result_json(result))

    def close(self) -> None:
        """Nothing is held."""


def result_json(result: RunResult) -> dict[str, Any]:
    """The last line of a run for machines."""
    return {
        "event": "result",
        "run": result.run,
        "status": result.status,
        "seconds": round(result.seconds, 4),
        "steps_run": result.steps_run,
        "steps_cached": result.steps_cached,
        "files": [
            {"output": f.output, "path": str(f.path), "sha256": f.sha256, "bytes": f.bytes} for f in result.files
        ],
        "failures": {name: str(error) for name, error in result.failures.items()},
        "not_run": list(result.skipped),
    }
