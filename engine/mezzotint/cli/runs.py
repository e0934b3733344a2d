"""`mezzotint runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli.columns import print_columns, size_words
from mezzotint.cli.failures import printable
from mezzotint.cli.options import HELP, debug_option, json_option

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["command"]

_folder = click.option(
    "--runs",
    "folder",
    default="runs",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the records are.",
)


def _complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    folder = Path(ctx.params.get("folder") or "runs")
    known = ["last", *sorted(path.parent.name for path in folder.glob("*/run.json"))]
    return [CompletionItem(word) for word in known if word.startswith(incomplete)]


@click.group("runs", context_settings=HELP)
def command() -> None:
    """Look at the records of past runs, and compare them.

    RUN is a run's id, the beginning of it, or "last".
    """


@command.command("ls", context_settings=HELP)
@_folder
@json_option("Print the records as JSON.")
@debug_option
def ls(folder: Path, as_json: bool) -> int:
    """List the runs, the newest last."""
    from mezzotint.record import list_runs

    records = list_runs(folder)
    if as_json:
        click.echo(json.dumps(records, indent=1))
        return 0
    if not records:
        click.echo(f"no runs in {folder}")
        return 0
    rows = [
        (r["run"], r.get("status", "?"), r.get("graph", ""), f"{r.get('seconds', 0):.2f} s", _inputs(r))
        for r in records
    ]
    print_columns(("RUN", "STATUS", "GRAPH", "TOOK", "INPUTS"), rows, right=("TOOK",))
    return 0


def _inputs(record: dict[str, Any]) -> str:
    return ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in record.get("inputs", {}).items())


@command.command("show", context_settings=HELP)
@click.argument("run", default="last", shell_complete=_complete)
@_folder
@json_option("Print the record as it is.")
@debug_option
def show(run: str, folder: Path, as_json: bool) -> int:
    """Show one run: its inputs, steps, files."""
    from mezzotint.record import read_run

    record = read_run(folder, run)
    if as_json:
        click.echo(json.dumps(record, indent=1))
        return 0
    for name in ("run", "status", "started", "graph", "file"):
        click.echo(printable(f"{name + ':':9} {record.get(name, '')}"))
    click.echo(
        f"{'took:':9} {record.get('seconds', 0):.2f} s, {size_words(record.get('peak_memory_bytes', 0))} at most"
    )
    for name, value in record.get("inputs", {}).items():
        click.echo(printable(f"  {name} = {json.dumps(value, ensure_ascii=False)}"))
    steps = [(s["node"], s["use"], _state(s), _took(s)) for s in record.get("steps", [])]
    if steps:
        click.echo()
        print_columns(("STEP", "NODE", "STATE", "TOOK"), steps, right=("TOOK",))
    for name, message in record.get("failures", {}).items():
        click.echo(printable(f"failed: {name}: {message}"))
    files = [(f["output"], size_words(f["bytes"]), f["path"]) for f in record.get("outputs", [])]
    if files:
        click.echo()
        print_columns(("OUTPUT", "SIZE", "FILE"), files, right=("SIZE",))
    return 0


def _state(step: dict[str, Any]) -> str:
    return next((word for word in ("cached", "failed", "skipped") if step.get(word)), "run")


def _took(step: dict[str, Any]) -> str:
    return f"{step['seconds']:.2f} s" if "seconds" in step else ""


@command.command("diff", context_settings=HELP, epilog="Exit codes: 0 alike, 1 they differ.")
@click.argument("a", metavar="RUN", shell_complete=_complete)
@click.argument("b", metavar="RUN", default="last", shell_complete=_complete)
@_folder
@json_option("Print a list of {what, a, b}.")
@debug_option
def diff(a: str, b: str, folder: Path, as_json: bool) -> int:
    """Where two runs differ: inputs, versions, machine, models, steps, outputs."""
    from mezzotint.record import diff_runs, read_run

    rows = diff_runs(read_run(folder, a), read_run(folder, b))
    if as_json:
        click.echo(json.dumps([{"what": what, "a": left, "b": right} for what, left, right in rows], indent=1))
    elif rows:
        print_columns(
            ("WHAT", "FIRST", "SECOND"), [(what, _word(left), _word(right)) for what, left, right in rows]
        )
    else:
        click.echo("no difference")
    return 1 if rows else 0


def _word(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)
