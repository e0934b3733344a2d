"""`mezzotint plugins`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from mezzotint.cli import Flags
from mezzotint.cli.columns import print_columns
from mezzotint.cli.options import HELP, debug_option, json_option

__all__ = ["command"]


@click.command("plugins", context_settings=HELP, epilog="Exit codes: 0 all are sound, 1 some are broken or clash.")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE.py",
    type=click.Path(path_type=Path),
    help="A one-file plugin to look at too.",
)
@json_option("Print the plugins as JSON, tracebacks included.")
@debug_option
@click.pass_context
def command(ctx: click.Context, plugins: tuple[Path, ...], as_json: bool) -> int:
    """List the plugins: what each gives, and what went wrong."""
    from mezzotint.plugins import load_registry, plugins_table

    registry = load_registry(namespaces=(), files=())
    for file in plugins:
        registry.supply.load_file(file)  # type: ignore[union-attr]
    rows = plugins_table(registry)
    wrong = [row for row in rows if row.state != "ok"]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return 1 if wrong else 0
    table = []
    for row in rows:
        hooks = [h for h in row.hooks if not h.startswith("register_")]
        gives = f"{len(row.nodes)} nodes" + (f"; hooks: {', '.join(hooks)}" if hooks else "")
        table.append((row.name, f"{row.package} {row.version}".strip(), row.state, row.error or gives))
    print_columns(("PLUGIN", "PACKAGE", "STATE", "GIVES"), table)
    for row in wrong:
        if row.traceback and ctx.ensure_object(Flags).debug:
            click.echo(f"\n{row.name}:\n{row.traceback.rstrip()}")
    if any(row.traceback for row in wrong) and not ctx.ensure_object(Flags).debug:
        click.echo("\n--debug shows the tracebacks")
    return 1 if wrong else 0
