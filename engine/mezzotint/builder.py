"""Writing a graph in Python: checked as it grows, saved as the same JSON that people write by hand."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.errors import UserError, did_you_mean
from mezzotint.signature import MISSING, EdgeType, edge_type

if TYPE_CHECKING:
    from mezzotint.api import LoadedGraph
    from mezzotint.document import GraphDoc
    from mezzotint.nodes import NodeSpec
    from mezzotint.registry import Registry
    from mezzotint.runtime import Runtime

__all__ = ["GraphBuilder", "Link", "NodeHandle"]

_ANY = EdgeType("any")
_WIDTH = 110


@dataclass(frozen=True)
class Link:
    """What a graph's input or a node's output gives, to be put into another node or an output."""

    ref: str
    type: EdgeType


class NodeHandle:
    """A node of a graph in the making. Its outputs are attributes, `model.denoiser`, and items, `["denoiser"]`.

    A node with one output may be linked itself.
    """

    def __init__(self, name: str, use: str, outputs: Mapping[str, EdgeType] | None) -> None:
        self._name = name
        self._use = use
        self._outputs = outputs

    def __getattr__(self, port: str) -> Link:
        if port.startswith("_"):
            raise AttributeError(port)
        return self[port]

    def __getitem__(self, port: str) -> Link:
        if self._outputs is None:  # a graph's or a map's: known when it is validated
            return Link(f"{self._name}.{port}", _ANY)
        if port not in self._outputs:
            raise UserError(f"{self._use} has no output {port!r}{_hint(port, self._outputs)}")
        return Link(f"{self._name}.{port}", self._outputs[port])

    def __repr__(self) -> str:
        return f"<node {self._name}: {self._use}>"

    def _only(self) -> Link:
        if self._outputs is None:
            return Link(self._name, _ANY)
        if len(self._outputs) != 1:
            raise UserError(f"node {self._name!r} has several outputs; say which one: {', '.join(self._outputs)}")
        return Link(self._name, next(iter(self._outputs.values())))


class GraphBuilder:
    """A graph in the making.

        g = GraphBuilder("hello")
        prompt = g.input("prompt", str, default="a large red circle")
        model = g.add("models.checkpoint@1", source="bundled:smallworld")
        text = g.add("models.encode_text@1", encoder=model.text_encoder, text=prompt)
        g.output("conditioning", text.conditioning)
        g.save("hello.json")

    registry: whose nodes there are; the installed ones, if None.
    """

    def __init__(self, name: str, *, description: str = "", registry: Registry | None = None) -> None:
        if registry is None:
            from mezzotint.plugins import load_registry

            registry = load_registry(namespaces=())
        self.name = name
        self.description = description
        self._registry = registry
        self._inputs: dict[str, dict[str, Any]] = {}
        self._nodes: dict[str, dict[str, Any]] = {}
        self._outputs: dict[str, dict[str, Any]] = {}

    def input(
        self, name: str, type: Any = str, *, default: Any = MISSING, description: str = "", **words: Any
    ) -> Link:
        """Declare an input of the graph.

        type: a Python type (`int`, `list[str]`, `Path`, `Literal["a", "b"]`, `float | None`) or a port class.
        words: `minimum`, `maximum`, `pattern`, `enum`, `format`, ... as in the file; `min_length` is `minLength`.

        Raises: UserError: if the name is taken or no edge can carry the type.
        """
        _free(name, self._inputs, "input")
        declared = _declared(type, name)
        optional = declared.pop("optional", False)
        declared |= {_camel(word): value for word, value in words.items()}
        if default is not MISSING or optional:
            declared["default"] = None if default is MISSING else default
        if description:
            declared["description"] = description
        self._inputs[name] = declared
        kind = edge_type(type, f"input {name!r}")
        if declared.get("format") in ("image", "video", "path"):
            kind = EdgeType("file", optional=kind.optional)
        return Link(f"inputs.{name}", kind)

    def add(self, use: str, name: str = "", /, **inputs: Any) -> NodeHandle:
        """Add a node. Its inputs are literals, links, handles, and lists and dicts of these.

        use: `namespace.name@version`, `graph:FILE`, `flow.map@1` or `flow.switch@1`. name: derived from `use` if
        empty. An input whose name is a word of Python is written with `_`: `with_=…`.

        Raises: UserError: for an unknown node, input or output, or a link of the wrong type.
        """
        name = name or self._free_name(use)
        _free(name, self._nodes, "node")
        given = {key.removesuffix("_"): value for key, value in inputs.items()}
        spec = None if use.startswith(("graph:", "flow.")) else self._spec(use)
        if spec is not None:
            self._check(spec, name, given)
        written = {key: self._written(value) for key, value in given.items()}
        self._nodes[name] = {"use": use, **({"inputs": written} if written else {})}
        outputs = {o.name: o.type for o in spec.outputs.values()} if spec is not None else None
        return NodeHandle(name, use, {"value": _ANY} if use.startswith("flow.switch@") else outputs)

    def output(self, name: str, value: Link | NodeHandle) -> None:
        """Make something an output of the graph. Raises: UserError: if the name is taken or `value` is no link."""
        _free(name, self._outputs, "output")
        link = value._only() if isinstance(value, NodeHandle) else value
        if not isinstance(link, Link):
            raise UserError(f"output {name!r}: wanted a node's output, got {value!r}")
        self._outputs[name] = {"ref": link.ref}

    def to_json(self) -> dict[str, Any]:
        """The graph as it stands in a file."""
        found: dict[str, Any] = {"format": 1, "name": self.name}
        if self.description:
            found["description"] = self.description
        if self._inputs:
            found["inputs"] = self._inputs
        copied: dict[str, Any] = json.loads(json.dumps({**found, "nodes": self._nodes, "outputs": self._outputs}))
        return copied

    def document(self) -> GraphDoc:
        """The graph as a document. Raises: GraphError: every problem of its syntax."""
        from mezzotint.document import parse_doc

        return parse_doc(self.to_json(), self.name)

    def save(self, path: Path | str) -> Path:
        """Check the whole graph and write it.

        Raises: GraphError: every problem found; then nothing is written. UserError: if the file cannot be written.
        """
        from mezzotint.atomic import write_bytes
        from mezzotint.validate import validate

        target = Path(path)
        validate(self.document(), self._registry, path=target)
        try:
            write_bytes(target, (_pretty(self.to_json()) + "\n").encode())
        except OSError as error:
            raise UserError(f"cannot write {target}: {error.strerror or error}") from error
        return target

    def load(self, runtime: Runtime | None = None, *, allow: tuple[Path | str, ...] = ()) -> LoadedGraph:
        """The graph, validated and ready to run. Raises: GraphError: every problem found."""
        from mezzotint.api import load

        return load(self.to_json(), runtime=runtime, allow=allow)

    def _spec(self, use: str) -> NodeSpec:
        id, _, version = use.partition("@")
        spec = self._registry.node(id, int(version)) if version.isdigit() else None
        if spec is not None:
            return spec
        newest = self._registry.newest(id)
        if newest is not None:
            raise UserError(f"there is no {use!r}; the newest is {newest.use!r}")
        from mezzotint.plugins import explain_missing

        raise UserError(explain_missing(self._registry, id) + _hint(id, self._registry.ids()))

    def _check(self, spec: NodeSpec, name: str, given: Mapping[str, Any]) -> None:
        for key, value in given.items():
            if key not in spec.inputs:
                raise UserError(f"node {name!r}: {spec.use} has no input {key!r}{_hint(key, spec.inputs)}")
            link = value._only() if isinstance(value, NodeHandle) else value
            if isinstance(link, Link) and not spec.inputs[key].type.accepts(link.type):
                wanted = spec.inputs[key].type
                raise UserError(f"node {name!r}: input {key!r} wants {wanted}, {link.ref} gives {link.type}")
        missing = [key for key, port in spec.inputs.items() if port.required and key not in given]
        if missing:
            raise UserError(f"node {name!r}: {spec.use} needs {', '.join(missing)}")

    def _written(self, value: Any) -> Any:
        """A value as JSON with links; what only looks like a link is wrapped."""
        if isinstance(value, NodeHandle):
            value = value._only()
        if isinstance(value, Link):
            return {"ref": value.ref}
        if isinstance(value, (list, tuple)):
            return [self._written(item) for item in value]
        if isinstance(value, Mapping):
            if len(value) == 1 and next(iter(value)) in ("ref", "literal"):
                return {"literal": dict(value)}
            return {str(key): self._written(item) for key, item in value.items()}
        return str(value) if isinstance(value, Path) else value

    def _free_name(self, use: str) -> str:
        word = use.partition("@")[0]
        word = Path(word.removeprefix("graph:")).stem if word.startswith("graph:") else word.rpartition(".")[2]
        word = re.sub(r"[^a-z0-9_]+", "_", word.lower()).strip("_")
        word = word if re.match(r"[a-z]", word) and word != "inputs" else f"node_{word}".rstrip("_")
        names = [word, *(f"{word}_{i}" for i in range(2, len(self._nodes) + 3))]
        return next(n for n in names if n not in self._nodes)


def _declared(kind: Any, name: str) -> dict[str, Any]:
    """A Python type as the words of a graph's input."""
    inner = [a for a in typing.get_args(kind) if a is not type(None)]
    found = edge_type(kind, f"input {name!r}")
    words: dict[str, Any] = {"optional": True} if found.optional else {}
    if typing.get_origin(kind) is typing.Literal:
        return {**words, "type": found.name, "enum": inner}
    if found.name == "any":
        raise UserError(f"input {name!r}: a graph's input has one type, got {kind!r}")
    if found.item is not None:
        item = _declared(inner[0], name) if inner and found.item.name != "any" else None
        return {**words, "type": "array", **({"items": item} if item else {})}
    if found.name in ("file", "source"):
        return {**words, "type": "string", **({"format": "path"} if found.name == "file" else {})}
    return {**words, "type": found.name}


def _free(name: str, taken: Mapping[str, Any], what: str) -> None:
    if name in taken:
        raise UserError(
            f"there is an {what} {name!r} already" if what != "node" else f"there is a node {name!r} already"
        )


def _camel(word: str) -> str:
    head, *rest = word.split("_")
    return head + "".join(part.title() for part in rest)


def _hint(word: str, known: Any) -> str:
    near = did_you_mean(word, known)
    return (
        f"; did you mean {near!r}?" if near else f"; it has {', '.join(known)}" if len(list(known)) <= 20 else ""
    )


def _pretty(value: Any, indent: int = 0, before: int = 0) -> str:
    """JSON with each object on one line where it fits, as people write graphs."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent + before <= _WIDTH and indent >= 4:
        return line
    inside = " " * (indent + 2)
    if isinstance(value, dict) and value:
        parts = []
        for key, part in value.items():
            head = f"{json.dumps(key)}: "
            parts.append(f"{inside}{head}{_pretty(part, indent + 2, len(head))}")
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inside + _pretty(part, indent + 2) for part in value) + "\n" + " " * indent + "]"
    return line
