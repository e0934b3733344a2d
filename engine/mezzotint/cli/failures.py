"""From an exception to what the user reads, one clear line per problem, and to the exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.errors import Cancelled, GraphError, MezzotintError, NodeError, Problem, StoreError

if TYPE_CHECKING:
    from mezzotint.cli import Flags

__all__ = ["CANCELLED", "FAILED", "USAGE", "printable", "problem_json", "report", "say", "show_problem"]

FAILED, USAGE, CANCELLED = 1, 2, 130
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text from a graph, a file or a node, with what would steer the terminal made visible."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def say(text: str) -> None:
    """One line on stderr."""
    click.echo(printable(text), err=True)


def report(error: BaseException, flags: Flags) -> int:
    """Show why a command line ended early, and give its exit code."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        say("cancelled")
        return CANCELLED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if flags.debug:
        traceback.print_exception(error)
    if flags.json:
        click.echo(json.dumps(_error_json(error)))
    return _explain(error)


def _explain(error: BaseException) -> int:
    if isinstance(error, click.ClickException):
        _explain_usage(error)
        return USAGE
    if isinstance(error, GraphError):
        for problem in error.problems:
            show_problem(problem)
        return USAGE
    if isinstance(error, StoreError):
        say(f"error: {error}, or run with --no-cache")
        return USAGE
    if isinstance(error, Cancelled):
        say("cancelled")
        return CANCELLED
    if isinstance(error, MezzotintError):
        for line in str(error).splitlines():
            say(f"error: {line}")
        return FAILED if isinstance(error, NodeError) else USAGE
    if isinstance(error, MemoryError):
        say("error: out of memory")
        return FAILED
    say(f"error: a mistake in Mezzotint itself: {type(error).__name__}: {error}")
    say("  --debug shows where; please report it")
    return FAILED


def _explain_usage(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    say(f"error: {error.format_message()}")
    if context is not None:
        file = " FILE" if getattr(context.command, "takes_graph", False) else ""
        say(f"  `{context.command_path}{file} --help` lists what there is")


def show_problem(problem: Problem) -> None:
    """One problem of a graph, its file as short as it can be said from here."""
    say(f"{problem.severity}: {_nearby(problem)}")


def problem_json(problem: Problem) -> dict[str, Any]:
    """A problem for machines."""
    return asdict(problem)


def _nearby(problem: Problem) -> Problem:
    path = Path(problem.file)
    if problem.file and path.is_absolute() and path.is_relative_to(Path.cwd()):
        return replace(problem, file=str(path.relative_to(Path.cwd())))
    return problem


def _error_json(error: BaseException) -> dict[str, Any]:
    if isinstance(error, GraphError):
        return {
            "event": "error",
            "message": "the graph is invalid",
            "problems": [problem_json(p) for p in error.problems],
        }
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return {"event": "error", "message": message, "problems": []}
