"""`mezzotint run --each` and `--sweep`: one run after the other; a failed one does not stop the rest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mezzotint.cli.display import JsonLines, took
from mezzotint.cli.failures import CANCELLED, FAILED, say
from mezzotint.cli.interrupt import Interrupt
from mezzotint.errors import MezzotintError

if TYPE_CHECKING:
    from mezzotint.batch import Item
    from mezzotint.cli.display import Display
    from mezzotint.cli.run import Options
    from mezzotint.graph import Graph
    from mezzotint.runtime import Runtime

__all__ = ["run_items"]


def run_items(graph: Graph, items: list[Item], runtime: Runtime, options: Options, display: Display) -> int:
    """Run all items; 1 if any failed, 130 if the user stopped it."""
    tally = _Tally(len(items))
    try:
        with Interrupt(quiet=options.quiet) as interrupt:
            for number, item in enumerate(items, 1):
                display.item(number, len(items), item.label)
                tally.add(_run(graph, item, runtime, options, interrupt, display), item)
                if interrupt.asked or (tally.failed and options.settings["fail_fast"]) or tally.stuck:
                    break
    finally:
        display.close()
    if isinstance(display, JsonLines):
        display.extra = {}
        display.line({"event": "batch_finished", **tally.counts()})
    elif not options.quiet or tally.failed:
        tally.show()
    if tally.stuck:
        from mezzotint.cli.run import leave_stuck

        leave_stuck(runtime)
    if interrupt.asked and tally.left:
        say("what is finished is kept; the same command goes on from there")
        return CANCELLED
    return FAILED if tally.failed or tally.left else 0


def _run(
    graph: Graph, item: Item, runtime: Runtime, options: Options, interrupt: Interrupt, display: Display
) -> str:
    stem = item.stem(options.name or graph.name)
    try:
        result = options.run(graph, dict(item.inputs), runtime, stem, interrupt, display)
    except (
        MezzotintError
    ) as error:  # an input that only planning could find wrong, such as a file that is not there
        from mezzotint.events import NodeFailed

        display.event(NodeFailed(item.label, "", str(error), error))
        return "failed"
    display.result(result)
    return "stuck" if result.stuck else result.status


class _Tally:
    """What became of the items."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.failed: list[Item] = []
        self.stuck = False
        self.started = time.perf_counter()

    @property
    def left(self) -> int:
        return self.total - self.done - len(self.failed)

    def add(self, status: str, item: Item) -> None:
        self.stuck = status == "stuck"
        if status == "done":
            self.done += 1
        elif status in ("failed", "stuck"):
            self.failed.append(item)

    def counts(self) -> dict[str, float]:
        seconds = round(time.perf_counter() - self.started, 4)
        return {
            "of": self.total,
            "done": self.done,
            "failed": len(self.failed),
            "left": self.left,
            "seconds": seconds,
        }

    def show(self) -> None:
        parts = [f"{self.done} of {self.total} runs done"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{self.left} not run"] if self.left else []
        say(f"{', '.join(parts)}, {took(time.perf_counter() - self.started)}")
        for item in self.failed[:20]:
            say(f"  failed: {item.label}")
        if len(self.failed) > 20:
            say(f"  and {len(self.failed) - 20} more")
