"""`mezzotint plan`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli.columns import print_columns, size_words
from mezzotint.cli.failures import show_problem
from mezzotint.cli.graph_flags import GraphCommand, graph_argument, graph_of, inputs_of
from mezzotint.cli.options import HELP, allow_option, debug_option, json_option, open_runtime, plugin_option

if TYPE_CHECKING:
    from mezzotint.show import PlanView

__all__ = ["command"]


@click.command("plan", cls=GraphCommand, context_settings=HELP, epilog="Exit codes: 0 done, 2 bad usage or graph.")
@graph_argument
@click.option(
    "--wanted", multiple=True, metavar="OUTPUT", help="Plan for this output only; may be given more than once."
)
@click.option("--dot", is_flag=True, help="Print the steps and their links for Graphviz.")
@click.option("--mermaid", is_flag=True, help="Print them as a Mermaid flowchart.")
@click.option("--no-cache", is_flag=True, help="Plan as if nothing were stored.")
@click.option("--device", default="auto", show_default=True, help="As in `run`: stored results depend on it.")
@click.option("--dtype", default="float32", show_default=True, help="As in `run`: stored results depend on it.")
@allow_option
@plugin_option
@json_option("Print the plan as JSON.")
@debug_option
@click.pass_context
def command(
    ctx: click.Context, /, wanted: tuple[str, ...], dot: bool, mermaid: bool, no_cache: bool, device: str,
    dtype: str, allow: tuple[Path, ...], plugins: tuple[Path, ...], as_json: bool, inputs: tuple[str, ...],
    **_: Any,
) -> int:  # fmt: skip
    """Show what a run would do: steps, what is cached, what would be loaded."""
    from mezzotint.show import PlanView

    if dot + mermaid + as_json > 1:
        raise click.UsageError("--dot, --mermaid and --json exclude each other", ctx)
    given = inputs_of(ctx, inputs)
    runtime = open_runtime(plugins, no_cache=no_cache, device=device, dtype=dtype)
    with closing(runtime):
        graph = graph_of(ctx).validate(runtime.registry, tuple(p.resolve() for p in allow))
        names = [w for each in wanted for w in each.split(",")] or None
        view = PlanView(runtime.plan(graph, given, names), runtime.registry)
        if dot or mermaid or as_json:
            click.echo(view.dot() if dot else view.mermaid() if mermaid else json.dumps(view.to_json(), indent=1))
            return 0
        for problem in graph.warnings:
            show_problem(problem)
        _print_table(view)
    return 0


def _print_table(view: PlanView) -> None:
    words = {"run": "run", "load": "cached, read", "cached": "cached"}
    if view.rows:
        print_columns(("STEP", "NODE", "STATE"), [(r.node, r.use, words[r.state]) for r in view.rows])
    if view.loads:
        click.echo()
        rows = [(load.name, load.kind, size_words(load.bytes), _some(load.steps)) for load in view.loads]
        print_columns(("LOADS", "KIND", "SIZE", "FOR"), rows, right=("SIZE",))
    click.echo()
    running = len(view.demand.pending)
    click.echo(f"{len(view.rows)} steps: {running} to run, {len(view.rows) - running} cached")


def _some(names: tuple[str, ...], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
