"""`mezzotint new-plugin`: an installable package with one node, its test and a graph, to start from."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from mezzotint.contribution import BUNDLED_NAMESPACES, RESERVED_NAMESPACES
from mezzotint.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

__all__ = ["PluginNames", "new_plugin", "plugin_names"]

_NAME = re.compile(r"[a-z]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class PluginNames:
    """name: of the distribution, normalised. module: what Python imports. namespace: of the nodes."""

    name: str
    module: str
    namespace: str


def plugin_names(name: str) -> PluginNames:
    """The names that follow from a distribution's: `acme-nodes` is imported as `acme_nodes`, with nodes `acme.…`.

    Raises: UserError: if it is no name for a distribution (PEP 508), or its module would hide another one.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no package name: use letters, digits and -, beginning with a letter")
    normal = re.sub(r"[-_.]+", "-", name).lower()
    module = normal.replace("-", "_")
    if module in sys.stdlib_module_names or keyword.iskeyword(module) or module.startswith("mezzotint"):
        raise UserError(f"{name!r} would be imported as {module!r}, which is taken; choose another name")
    namespace = re.sub(r"_(nodes?|plugins?)$", "", module)
    if namespace in BUNDLED_NAMESPACES | RESERVED_NAMESPACES:
        namespace = module
    if namespace in BUNDLED_NAMESPACES | RESERVED_NAMESPACES:
        raise UserError(f"the namespace {namespace!r} is Mezzotint's; choose another name, such as 'my-{name}'")
    return PluginNames(normal, module, namespace)


def new_plugin(name: str, folder: Path) -> list[Path]:
    """Write a new plugin package into `folder`, which must be new or empty; gives the files written.

    Raises: UserError: if the name will not do, or the folder has something in it.
    Raises: OSError: if it cannot be written.
    """
    names = plugin_names(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty; nothing was written")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written beside it and renamed, so that a failure leaves nothing half-written.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{names.module}-", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        written = [_write(template, parts, unfinished, names) for template, parts in _templates()]
        if folder.exists():
            folder.rmdir()
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return sorted(folder / path.relative_to(unfinished) for path in written)


def _templates() -> Iterator[tuple[Traversable, tuple[str, ...]]]:
    def walk(folder: Traversable, above: tuple[str, ...]) -> Iterator[tuple[Traversable, tuple[str, ...]]]:
        for each in sorted(folder.iterdir(), key=lambda f: f.name):
            if each.is_dir():
                yield from walk(each, (*above, each.name))
            elif each.name.endswith(".tmpl"):
                yield each, (*above, each.name.removesuffix(".tmpl"))

    return walk(files("mezzotint") / "templates" / "plugin", ())


def _write(template: Traversable, parts: tuple[str, ...], root: Path, names: PluginNames) -> Path:
    # No file here begins with a dot: packagers pass those over.
    path = root.joinpath(*(p.replace("__module__", names.module).replace("dot-", ".") for p in parts))
    path.parent.mkdir(parents=True, exist_ok=True)
    text = Template(template.read_text(encoding="utf-8"))
    filled = text.substitute(name=names.name, module=names.module, namespace=names.namespace)
    path.write_text(filled, encoding="utf-8", newline="\n")
    return path
