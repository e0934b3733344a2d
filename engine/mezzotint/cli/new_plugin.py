"""`mezzotint new-plugin`."""

from __future__ import annotations

from pathlib import Path

import click

from mezzotint.cli.options import HELP, debug_option

__all__ = ["command"]


@click.command("new-plugin", context_settings=HELP, epilog="Exit codes: 0 done, 2 bad name or folder.")
@click.argument("name")
@click.option(
    "--folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to write it: a new or empty folder.  [default: NAME]",
)
@debug_option
def command(name: str, folder: Path | None) -> int:
    """Write the beginnings of a plugin package.

    NAME is the package's, such as acme-nodes.
    """
    from mezzotint.errors import UserError
    from mezzotint.scaffold import new_plugin, plugin_names

    target = folder or Path(plugin_names(name).name)
    try:
        made = new_plugin(name, target)
    except OSError as error:
        raise UserError(f"cannot write into {target}: {error.strerror or error}") from error
    for path in made:
        click.echo(str(path))
    click.echo(f"next: pip install -e {target} && mezzotint nodes {plugin_names(name).namespace}", err=True)
    return 0
