"""`mezzotint cache`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli.columns import ago, print_columns, size_words
from mezzotint.cli.failures import FAILED
from mezzotint.cli.options import HELP, debug_option, json_option

if TYPE_CHECKING:
    from mezzotint.store import Store

__all__ = ["command"]


def _with_store(fn: Callable[..., int]) -> Callable[..., int]:
    """Open the user's store for a verb and close it again."""

    @wraps(fn)
    def call(**given: Any) -> int:
        from mezzotint.store import Store

        with closing(Store.open_default()) as store:
            return fn(store, **given)

    return call


@click.group("cache", context_settings=HELP)
def command() -> None:
    """Look after the store of results.

    It is in the folder MEZZOTINT_CACHE, or the platform's cache folder, and holds at most MEZZOTINT_CACHE_LIMIT
    bytes (20GB); what was used least recently goes first.
    """


@command.command("ls", context_settings=HELP)
@click.option("--all", "everything", is_flag=True, help="List all entries, not the 20 used last.")
@json_option("Print the entries as JSON.")
@debug_option
@_with_store
def ls(store: Store, everything: bool, as_json: bool) -> int:
    """List what is stored, the entries used last at the end."""
    rows = store.ls()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return 0
    rows.sort(key=lambda row: row.used)
    shown = rows if everything else rows[-20:]
    now = time.time()
    if shown:
        table = [
            (r.key[:12], r.kind, r.node, size_words(r.size), f"{r.seconds:.2f} s", f"{ago(now - r.used)} ago")
            for r in shown
        ]
        header = ("KEY", "KIND", "NODE", "SIZE", "TOOK", "USED")
        print_columns(header, table, right=("SIZE", "TOOK", "USED"))
        click.echo()
    stats = store.stats()
    left = f", {len(rows) - len(shown)} of them not shown" if len(rows) > len(shown) else ""
    click.echo(f"{stats.entries} entries{left}, {size_words(stats.bytes)} of {size_words(stats.limit)}")
    click.echo(str(store.folder))
    return 0


@command.command("gc", context_settings=HELP)
@click.option("--limit", metavar="SIZE", help="Keep at most this, e.g. 2GB.  [default: the store's own limit]")
@json_option("Print the report as JSON.")
@debug_option
@_with_store
def gc(store: Store, limit: str | None, as_json: bool) -> int:
    """Remove what was used least recently, down to a size, and what crashes left behind."""
    from mezzotint.store import parse_size

    report = store.gc(None if limit is None else parse_size(limit, "--limit"))
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        left = f", {report.leftovers} leftover files" if report.leftovers else ""
        click.echo(
            f"removed {report.entries} entries, {size_words(report.freed)}{left}; {size_words(report.kept)} kept"
        )
    return 0


@command.command("verify", context_settings=HELP, epilog="Exit codes: 0 all sound, 1 damage was found.")
@json_option("Print the report as JSON.")
@debug_option
@_with_store
def verify(store: Store, as_json: bool) -> int:
    """Read every byte; set aside what is damaged, so that it is made again."""
    report = store.verify()
    if as_json:
        click.echo(json.dumps(asdict(report), default=str))
    else:
        for damage in report.damaged:
            where = f", set aside as {damage.path}" if damage.path else ""
            click.echo(f"{damage.key[:12]}: {damage.reason}{where}")
        click.echo(f"{report.entries} entries, {size_words(report.bytes)}: {len(report.damaged)} damaged")
    return FAILED if report.damaged else 0


@command.command("clear", context_settings=HELP)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("Print the report as JSON.")
@debug_option
@_with_store
def clear(store: Store, yes: bool, as_json: bool) -> int:
    """Remove everything, but what other processes are using now."""
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("not a terminal to ask at; give --yes")
        click.confirm(f"remove {size_words(store.stats().bytes)} from {store.folder}?", abort=True, err=True)
    report = store.clear()
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        kept = f"; {size_words(report.kept)} are in use" if report.kept else ""
        click.echo(f"removed {report.entries} entries, {size_words(report.freed)}{kept}")
    return 0
