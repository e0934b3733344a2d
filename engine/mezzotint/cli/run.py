"""`mezzotint run`."""

from __future__ import annotations

import os
import sys
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli import Flags
from mezzotint.cli.display import make_display
from mezzotint.cli.failures import CANCELLED, FAILED, say, show_problem
from mezzotint.cli.graph_flags import GraphCommand, graph_argument, graph_of, inputs_of
from mezzotint.cli.options import (
    HELP,
    allow_option,
    debug_option,
    json_option,
    open_runtime,
    plugin_option,
    runtime_options,
)

if TYPE_CHECKING:
    from mezzotint.cli.display import Display
    from mezzotint.cli.interrupt import Interrupt
    from mezzotint.graph import Graph
    from mezzotint.runner import RunResult
    from mezzotint.runtime import Runtime

__all__ = ["command"]


@click.command(
    "run",
    cls=GraphCommand,
    context_settings=HELP,
    epilog="FILE is a graph, bundled:graphs/NAME, or a picture that Mezzotint made. "
    "Exit codes: 0 done, 1 a node failed, 2 bad usage or graph, 130 cancelled.",
)
@graph_argument
@click.option(
    "--out",
    default="outputs",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the files go.",
)
@click.option(
    "--runs",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the run's record goes.  [default: `runs` beside --out]",
)
@click.option("--name", metavar="STEM", help="How the files' names begin, in place of the graph's name.")
@click.option(
    "--wanted", multiple=True, metavar="OUTPUT", help="Make this output only; may be given more than once."
)
@click.option(
    "--each",
    multiple=True,
    metavar="[INPUT=]FILE",
    help="Run once per line of a text file, or per row of a .csv or .jsonl file.",
)
@click.option(
    "--sweep",
    multiple=True,
    metavar="INPUT=VALUES",
    help="Run once per value: seed=0..99, steps=10,20,40; several multiply.",
)
@allow_option
@plugin_option
@runtime_options
@json_option("Print events as JSON lines, the result last.")
@click.option("--quiet", "-q", is_flag=True, help="Print the files' paths and what went wrong, nothing else.")
@debug_option
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Run a graph and write its outputs."""
    options = Options(ctx, given)
    inputs = inputs_of(ctx, given["inputs"])
    items = options.items(inputs)
    runtime = open_runtime(given["plugins"], **options.settings)
    with closing(runtime):
        graph = graph_of(ctx).validate(runtime.registry, options.allow)
        for problem in graph.warnings:
            if not options.json and not options.quiet:
                show_problem(problem)
        _check_wanted(graph, options.wanted)
        _check_folder(options.out)
        display = make_display(as_json=options.json, quiet=options.quiet, debug=ctx.ensure_object(Flags).debug)
        runtime.store.on_damage = _damage_reporter(display)
        with redirect_stdout(sys.stderr):  # what a node prints must not mix with what a script reads
            if items is not None:
                from mezzotint.cli.batch_run import run_items

                return run_items(graph, items, runtime, options, display)
            return _run_once(graph, inputs, runtime, options, display)


class Options:
    """What the verb was told, beside the graph's inputs."""

    def __init__(self, ctx: click.Context, given: dict[str, Any]) -> None:
        self.doc = graph_of(ctx).doc
        self.out: Path = given["out"]
        self.runs: Path = given["runs"] or self.out.parent / "runs"
        self.name: str | None = _stem(given["name"])
        self.wanted: list[str] | None = [w for each in given["wanted"] for w in each.split(",")] or None
        self.allow = tuple(Path(p).resolve() for p in given["allow"])
        self.json: bool = given["as_json"]
        self.quiet: bool = given["quiet"]
        self.each: tuple[str, ...] = given["each"]
        self.sweep: tuple[str, ...] = given["sweep"]
        names = ("no_cache", "device", "dtype", "workers", "memory", "timeout", "retries", "fail_fast")
        self.settings = {name: given[name] for name in names}

    def items(self, inputs: dict[str, Any]) -> Any:
        """The runs of a batch, or None for a single run."""
        if not (self.each or self.sweep):
            return None
        from mezzotint.batch import make_items

        return make_items(self.doc, inputs, each=self.each, sweeps=self.sweep)

    def run(
        self,
        graph: Graph,
        inputs: dict[str, Any],
        runtime: Runtime,
        name: str | None,
        interrupt: Interrupt,
        display: Display,
    ) -> RunResult:
        from mezzotint.runner import run_graph

        return run_graph(
            graph,
            inputs,
            runtime,
            wanted=self.wanted,
            out=self.out,
            runs=self.runs,
            name=name,
            cancel=interrupt.fresh_event(),
            on_event=display.event,
        )


def _run_once(graph: Graph, inputs: dict[str, Any], runtime: Runtime, options: Options, display: Display) -> int:
    from mezzotint.cli.interrupt import Interrupt

    try:
        with Interrupt(quiet=options.quiet) as interrupt:
            result = options.run(graph, inputs, runtime, options.name, interrupt, display)
        display.result(result)
    finally:
        display.close()
    if result.stuck:
        leave_stuck(runtime)
    if result.status == "done":
        return 0
    if interrupt.asked:
        say("what is finished is kept; the same command goes on from there")
        return CANCELLED
    return FAILED


def leave_stuck(runtime: Runtime) -> None:
    """End the process although a node still runs: what is finished is in the store."""
    runtime.close()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(FAILED)


def _stem(name: str | None) -> str | None:
    if name is not None and (not name or "/" in name or os.sep in name or "\0" in name or name in (".", "..")):
        raise click.BadParameter(f"{name!r} is no beginning of a file's name", param_hint="--name")
    return name


def _check_wanted(graph: Graph, wanted: list[str] | None) -> None:
    for name in wanted or ():
        if name not in graph.outputs:
            from mezzotint.errors import did_you_mean

            near = did_you_mean(name, graph.outputs)
            hint = f"did you mean {near!r}?" if near else f"it has {', '.join(graph.outputs)}"
            raise click.BadParameter(f"the graph has no output {name!r}; {hint}", param_hint="--wanted")


def _check_folder(folder: Path) -> None:
    """Find out now, and not after an hour of sampling, that the files have nowhere to go."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"cannot write into {folder}: {error.strerror or error}"
        raise click.BadParameter(message, param_hint="--out") from error


def _damage_reporter(display: Display) -> Any:
    from mezzotint.events import Warned

    def on_damage(key: str, path: Path | None, reason: str) -> None:
        kept = f"; set aside as {path}" if path is not None else ""
        display.event(Warned(f"a stored result could not be used and is made again: {reason}{kept}"))

    return on_damage
