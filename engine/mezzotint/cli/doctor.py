"""`mezzotint doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from mezzotint.cli.columns import print_columns
from mezzotint.cli.options import HELP, debug_option, json_option

__all__ = ["command"]


@click.command(
    "doctor", context_settings=HELP, epilog="Exit codes: 0 no failure (warnings may be), 1 something fails."
)
@json_option("Print a list of {what, state, message}.")
@debug_option
def command(as_json: bool) -> int:
    """Check the installation."""
    from mezzotint.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=1, ensure_ascii=False))
    else:
        print_columns(("CHECK", "STATE", "FINDING"), [(f.what, f.state, f.message) for f in findings])
    return 1 if any(f.state == "fail" for f in findings) else 0
