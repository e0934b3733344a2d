"""Progress bars on a terminal: all nodes together, and each node that reports its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mezzotint.cli.display import Quiet, summary, took
from mezzotint.cli.failures import printable
from mezzotint.events import NodeFailed, NodeFinished, NodeRetried, NodeStarted, RunStarted, StepDone

if TYPE_CHECKING:
    from mezzotint.events import Event
    from mezzotint.runner import RunResult

__all__ = ["Bars"]


class Bars(Quiet):
    """Rich is imported when the first node starts: a run that finds everything in the store never pays for it."""

    slow = 1.0

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self.bars: Any = None
        self.whole: Any = None
        self.tasks: dict[str, Any] = {}
        self.started: RunStarted | None = None
        self.label = ""
        self.items: tuple[int, int] | None = None
        self.item_task: Any = None

    def event(self, event: Event) -> None:
        super().event(event)
        if isinstance(event, RunStarted):
            self.started = event
        elif isinstance(event, NodeStarted):
            self.open()
            self.tasks[event.node] = self.bars.add_task(event.node, total=None, rate="")
        elif isinstance(event, StepDone) and event.node in self.tasks:
            self.step(event)
        elif isinstance(event, NodeRetried):
            self.say(f"{event.node}: trying again after: {event.message}")
        elif isinstance(event, (NodeFinished, NodeFailed)) and event.node in self.tasks:
            self.finish(event)

    def open(self) -> None:
        if self.bars is None:
            self.bars = _make_bars()
            self.bars.start()
        if self.items is not None and self.item_task is None:
            self.item_task = self.bars.add_task("items", total=self.items[1], completed=self.items[0] - 1, rate="")
        if self.whole is None and self.started is not None:
            found = (
                f"{self.started.graph} ({self.started.cached} cached)"
                if self.started.cached
                else self.started.graph
            )
            self.whole = self.bars.add_task(found, total=self.started.steps, rate="")

    def step(self, event: StepDone) -> None:
        task = self.tasks[event.node]
        self.bars.update(task, completed=event.done, total=event.total)
        speed = self.bars.tasks[self.bars.task_ids.index(task)].speed
        if speed:
            self.bars.update(task, rate=f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")

    def finish(self, event: NodeFinished | NodeFailed) -> None:
        self.bars.remove_task(self.tasks.pop(event.node))
        if self.whole is not None:
            self.bars.advance(self.whole)
        if isinstance(event, NodeFinished) and event.seconds >= self.slow:
            self.say(f"{event.node}: {took(event.seconds)}")

    def say(self, text: str) -> None:
        if self.bars is None:
            super().say(text)
        else:
            self.bars.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def print(self, text: str) -> None:
        # Onto the line that a bar holds, nothing may be written past rich; but a pipe must get it.
        if self.bars is not None and self.out.isatty():
            self.say(text)
        else:
            super().print(text)

    def item(self, number: int, total: int, label: str) -> None:
        self.items = (number, total)
        self.label = f"[{number}/{total}] {label}: "
        if self.item_task is not None:
            self.bars.update(self.item_task, completed=number - 1)

    def result(self, result: RunResult) -> None:
        for task in [*self.tasks.values(), *([self.whole] if self.whole is not None else [])]:
            self.bars.remove_task(task)
        self.tasks, self.whole = {}, None
        if self.items is None:
            self.close()
        super().result(result)
        self.say(f"{self.label}{summary(result)}")

    def close(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None


def _make_bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
