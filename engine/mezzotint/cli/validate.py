"""`mezzotint validate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mezzotint.cli.completion import complete_graph
from mezzotint.cli.failures import USAGE, problem_json, say, show_problem
from mezzotint.cli.options import HELP, allow_option, debug_option, json_option, plugin_option

if TYPE_CHECKING:
    from mezzotint.errors import Problem
    from mezzotint.registry import Registry

__all__ = ["command"]


@click.command("validate", context_settings=HELP, epilog="Exit codes: 0 no errors (warnings may be), 2 errors.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, shell_complete=complete_graph)
@allow_option
@plugin_option
@json_option("Print a list of {pointer, message, code, file, got, wanted, suggestion, severity}.")
@debug_option
def command(files: tuple[str, ...], allow: tuple[Path, ...], plugins: tuple[Path, ...], as_json: bool) -> int:
    """Check graphs: every problem, with its place in the file."""
    from mezzotint.plugins import load_registry

    registry = load_registry(namespaces=(), files=plugins)
    allowed = tuple(path.resolve() for path in allow)
    problems = [problem for file in files for problem in problems_of(file, registry, allowed)]
    wrong = any(problem.severity == "error" for problem in problems)
    if as_json:
        click.echo(json.dumps([problem_json(problem) for problem in problems], indent=1))
        return USAGE if wrong else 0
    for problem in problems:
        show_problem(problem)
    if not wrong:
        say(f"{files[0]}: no errors" if len(files) == 1 else f"{len(files)} graphs: no errors")
    return USAGE if wrong else 0


def problems_of(file: str, registry: Registry, allowed: tuple[Path, ...]) -> tuple[Problem, ...]:
    """All that is wrong with one file, its being unreadable included."""
    from mezzotint.errors import GraphError, Problem, UserError
    from mezzotint.reading import read_file

    try:
        return read_file(file).validate(registry, allowed).warnings
    except GraphError as error:
        return error.problems
    except UserError as error:
        return (Problem("", str(error), "bad_file", file=file),)
