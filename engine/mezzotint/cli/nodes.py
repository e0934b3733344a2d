"""`mezzotint nodes`."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mezzotint.cli.columns import print_columns
from mezzotint.cli.completion import complete_node
from mezzotint.cli.options import HELP, debug_option, json_option, plugin_option
from mezzotint.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from mezzotint.node_docs import InputDocs, NodeDocs
    from mezzotint.registry import Registry

__all__ = ["command"]


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    first = [CompletionItem("show")] if not ctx.params.get("words") and "show".startswith(incomplete) else []
    return [*first, *complete_node(ctx, param, incomplete)]


@click.command("nodes", context_settings=HELP, epilog="Exit codes: 0 done, 2 no such node.")
@click.argument("words", metavar="[PATTERN | show ID]", nargs=-1, shell_complete=_complete)
@click.option("--markdown", is_flag=True, help="Print a reference of all nodes.")
@click.option("--bundled", is_flag=True, help="Only what comes with Mezzotint.")
@plugin_option
@json_option("Print the nodes as JSON.")
@debug_option
def command(
    words: tuple[str, ...], markdown: bool, bundled: bool, plugins: tuple[Path, ...], as_json: bool
) -> int:
    """List the installed nodes, or show one of them.

    PATTERN is a part of a name, or has wildcards, as in 'models.*'.
    """
    from mezzotint.node_docs import all_docs
    from mezzotint.node_docs import markdown as as_markdown
    from mezzotint.plugins import load_registry

    registry = load_registry(namespaces=(), files=plugins, installed=not bundled)
    if words[:1] == ("show",) and len(words) == 2:
        docs = [_find(registry, words[1])]
    elif len(words) > 1 or words == ("show",):
        raise click.UsageError("wanted one PATTERN, or: show ID")
    else:
        docs = [d for d in all_docs(registry) if not words or _fits(d, words[0])]
    if as_json:
        click.echo(json.dumps([asdict(d) for d in docs], indent=1, ensure_ascii=False))
    elif markdown:
        click.echo(as_markdown(docs), nl=False)
    elif words[:1] == ("show",):
        _show(docs[0])
    else:
        _list(docs, words)
    return 0


def _fits(docs: NodeDocs, pattern: str) -> bool:
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(docs.id, pattern)
    return pattern.lower() in docs.id or pattern.lower() in docs.summary.lower()


def _list(docs: list[NodeDocs], words: tuple[str, ...]) -> None:
    if not docs:
        raise UserError(f"no node fits {words[0]!r}" if words else "no nodes are installed")
    print_columns(("NODE", "PACKAGE", "WHAT IT DOES"), [(d.use, d.package, d.summary) for d in docs])


def _find(registry: Registry, word: str) -> NodeDocs:
    from mezzotint.node_docs import FLOW, docs_of
    from mezzotint.plugins import explain_missing

    id, at, version = word.partition("@")
    for form in FLOW:
        if form.id == id:
            return form
    spec = registry.node(id, int(version)) if at and version.isdigit() else registry.newest(id)
    if spec is None:
        newest = registry.newest(id)
        if newest is not None:
            raise UserError(f"there is no version {version!r} of {id}; the newest is {newest.use}")
        near = did_you_mean(id, [*registry.ids(), *(f.id for f in FLOW)])
        raise UserError(explain_missing(registry, id) + (f"; did you mean {near!r}?" if near else ""))
    return docs_of(spec, str(registry.provenance(id)))


def _show(docs: NodeDocs) -> None:
    click.secho(docs.use, bold=True, nl=False)
    click.echo(f"  ({docs.package})\n{docs.summary}")
    for part in (docs.doc, *docs.notes):
        if part:
            click.echo(f"\n{part}")
    formatter = click.HelpFormatter(width=min(shutil.get_terminal_size().columns, 110))
    if docs.inputs:
        with formatter.section("Inputs"):
            formatter.write_dl([(i.name, _about(i)) for i in docs.inputs])
    with formatter.section("Outputs"):
        formatter.write_dl([(o.name, ". ".join(filter(None, (o.type, o.description)))) for o in docs.outputs])
    click.echo("\n" + formatter.getvalue().rstrip())


def _about(port: InputDocs) -> str:
    default = "required" if port.required else f"default {port.default}" if port.default else ""
    return ". ".join(filter(None, (", ".join(filter(None, (port.type, port.range, default))), port.description)))
