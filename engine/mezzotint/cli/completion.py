"""What the shell completes: graph files and node ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

__all__ = ["bundled_graphs", "complete_graph", "complete_node"]


def bundled_graphs() -> list[str]:
    """`bundled:graphs/…` for every graph that is installed."""
    from mezzotint.paths import _graph_roots

    found: dict[str, None] = {}
    for root in _graph_roots():
        for path in sorted(root.rglob("*.json")):
            if not path.name.endswith(".schema.json"):
                found[f"bundled:graphs/{path.relative_to(root).as_posix()}"] = None
    return list(found)


def complete_graph(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Graph files: JSON, pictures, folders on the way to them, and the bundled ones."""
    from click.shell_completion import CompletionItem

    if incomplete.startswith("bundled:"):
        return [CompletionItem(name) for name in bundled_graphs() if name.startswith(incomplete)]
    items = [CompletionItem("bundled:graphs/")] if "bundled:".startswith(incomplete) and incomplete else []
    return [*items, *(CompletionItem(word) for word in _files(incomplete))]


def _files(incomplete: str) -> list[str]:
    folder, slash, start = incomplete.rpartition("/")
    try:
        entries = sorted(Path(folder + slash or ".").iterdir())
    except OSError:
        return []
    words = []
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
            continue
        if entry.is_dir():
            words.append(f"{folder}{slash}{entry.name}/")
        elif entry.suffix.lower() in (".json", ".png") and not entry.name.endswith(".schema.json"):
            words.append(f"{folder}{slash}{entry.name}")
    return words


def complete_node(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Node ids; known without importing a plugin."""
    from click.shell_completion import CompletionItem

    from mezzotint.plugins import load_registry

    ids = [*load_registry(namespaces=()).ids(), "flow.map", "flow.switch"]
    return [CompletionItem(id) for id in sorted(ids) if id.startswith(incomplete)]
