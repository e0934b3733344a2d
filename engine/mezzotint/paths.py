"""Which files a graph may read: what the caller names, and what lies in the folder of the graph that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mezzotint.errors import UserError

__all__ = ["FileAccess", "bundled_name", "bundled_path"]


@dataclass(frozen=True)
class FileAccess:
    """The folders that paths written in one graph may lie in: the graph's own and those allowed by the caller.

    embedded: graphs that came along inside a picture, by name.
    """

    folder: Path | None
    allowed: tuple[Path, ...] = ()
    embedded: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self, text: str) -> Path:
        """A path written in a graph, links followed.

        Raises: UserError: if it leaves the folders, or is not there.
        """
        _check_text(text)
        bundled = bundled_path(text)
        if bundled is not None:
            return bundled
        if self.folder is None and not self.allowed:
            raise UserError(f"path {text!r} is written in a graph that has no folder; give it as an input")
        path = Path(text)
        base = self.folder or self.allowed[0]
        found = _resolved(path if path.is_absolute() else base / path)
        roots = [r.resolve() for r in (self.folder, *self.allowed) if r is not None]
        if not any(found.is_relative_to(root) for root in roots):
            inside = " or ".join(str(r) for r in roots)
            raise UserError(f"path {text!r} leaves the folder {inside}; allow its folder with --allow to read it")
        return _existing(found, text)

    @staticmethod
    def resolve_trusted(text: str) -> Path:
        """A path that the caller gave: anything that exists, relative to the working folder.

        Raises: UserError: if it is not there.
        """
        _check_text(text)
        bundled = bundled_path(text)
        if bundled is not None:
            return bundled
        return _existing(_resolved(Path(text), home=True), text)


def _check_text(text: str) -> None:
    if not text:
        raise UserError("a path cannot be empty")
    if "\0" in text:
        raise UserError("a path cannot hold a NUL character")


def _resolved(path: Path, home: bool = False) -> Path:
    try:
        return (path.expanduser() if home else path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, no such user
        raise UserError(f"path {str(path)[:200]!r} cannot be followed: {error}") from error


def _existing(path: Path, text: str) -> Path:
    try:
        exists = path.exists()
    except OSError as error:
        raise UserError(f"path {text[:200]!r} cannot be read: {error.strerror}") from error
    if not exists:
        raise UserError(f"there is no file {text[:200]!r}")
    return path


def bundled_path(text: str) -> Path | None:
    """`bundled:graphs/NAME` as a path in the installed package, or None if it is no such name.

    Raises: UserError: if there is no such graph.
    """
    if not text.startswith("bundled:graphs/"):
        return None
    name = text.removeprefix("bundled:graphs/")
    for root in _graph_roots():
        found = _resolved(root / name)
        if found.is_relative_to(root.resolve()) and found.is_file():
            return found
    raise UserError(f"there is no bundled graph {name!r}")


def bundled_name(path: Path) -> str | None:
    """The reverse of `bundled_path`: a name that means this file on every machine, or None."""
    for root in _graph_roots():
        if path.is_relative_to(root.resolve()):
            return f"bundled:graphs/{path.relative_to(root.resolve()).as_posix()}"
    return None


def _graph_roots() -> list[Path]:
    """Beside the engine in a checkout, or the installed package `mezzotint_graphs`."""
    roots = [Path(__file__).resolve().parents[2] / "graphs"]
    from importlib.util import find_spec

    spec = find_spec("mezzotint_graphs")
    if spec is not None and spec.submodule_search_locations:
        roots += [Path(p) for p in spec.submodule_search_locations]
    return [r for r in roots if r.is_dir()]
