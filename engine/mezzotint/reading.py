"""Reading a graph from where it stands: a JSON file, `bundled:graphs/…`, or a picture that Mezzotint made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mezzotint.paths import FileAccess

if TYPE_CHECKING:
    from pathlib import Path

    from mezzotint.document import GraphDoc
    from mezzotint.graph import Graph
    from mezzotint.registry import Registry

__all__ = ["GraphFile", "read_file"]


@dataclass(frozen=True)
class GraphFile:
    """A graph whose syntax is right. given, embedded: inputs and subgraphs that came along in a picture."""

    doc: GraphDoc
    path: Path
    picture: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
    embedded: Mapping[str, Any] = field(default_factory=dict)

    def validate(self, registry: Registry, allowed: tuple[Path, ...] = ()) -> Graph:
        """Check it against the installed nodes. Raises: GraphError: with every problem found."""
        from mezzotint.validate import validate

        if not self.picture:
            return validate(self.doc, registry, path=self.path, allowed=allowed)
        return validate(
            self.doc, registry, file=str(self.path), folder=self.path.parent, allowed=allowed,
            embedded=self.embedded, given=self.given,
        )  # fmt: skip


def read_file(text: str | Path) -> GraphFile:
    """Read a graph that the caller names.

    Raises: UserError: if it is missing or holds no graph. GraphError: every syntax problem in it.
    """
    path = FileAccess.resolve_trusted(str(text))
    if path.suffix.lower() == ".png":
        from mezzotint.embed import read_picture

        found = read_picture(path)
        return GraphFile(found.doc, path, True, found.inputs, found.graphs)
    from mezzotint.document import read_graph

    return GraphFile(read_graph(path), path)
