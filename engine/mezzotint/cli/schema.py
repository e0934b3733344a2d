"""`mezzotint schema`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mezzotint.cli.options import HELP, debug_option, plugin_option

__all__ = ["command"]


@click.command(
    "schema",
    context_settings=HELP,
    epilog='Write it beside your graphs and name it in them: "$schema": "graph-1.schema.json".',
)
@click.option("--bundled", is_flag=True, help="Only with the nodes that come with Mezzotint.")
@plugin_option
@debug_option
def command(bundled: bool, plugins: tuple[Path, ...]) -> int:
    """Print the JSON Schema of graph files, for editors."""
    from mezzotint.plugins import load_registry
    from mezzotint.schema import graph_schema

    registry = load_registry(namespaces=(), files=plugins, installed=not bundled)
    click.echo(json.dumps(graph_schema(registry), indent=1, ensure_ascii=False))
    return 0
