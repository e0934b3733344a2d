"""The graph file, format 1: JSON text to a typed document. Syntax only; `validate.py` knows what it means."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from mezzotint.errors import GraphError, Problem, UserError

__all__ = [
    "JSON_TYPES",
    "GraphDoc",
    "InputDoc",
    "NodeDoc",
    "Ref",
    "escape_pointer",
    "parse_json",
    "parse_value",
    "read_graph",
    "refs_in",
]

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 100
JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=200)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=True)


class InputDoc(_Strict):
    """One of the graph's own parameters, in JSON-Schema words; `type` may also be a port's name.

    A parameter without `default` must be given. `"default": null` makes it optional.
    """

    type: str
    description: str = ""
    default: Any = None
    enum: list[Any] | None = None
    format: str | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    exclusive_minimum: int | float | None = Field(default=None, alias="exclusiveMinimum")
    exclusive_maximum: int | float | None = Field(default=None, alias="exclusiveMaximum")
    min_length: int | None = Field(default=None, alias="minLength", ge=0)
    max_length: int | None = Field(default=None, alias="maxLength", ge=0)
    pattern: str | None = None
    min_items: int | None = Field(default=None, alias="minItems", ge=0)
    max_items: int | None = Field(default=None, alias="maxItems", ge=0)
    items: InputDoc | None = None

    @property
    def required(self) -> bool:
        return "default" not in self.model_fields_set

    @property
    def is_file(self) -> bool:
        return self.type == "string" and self.format in ("image", "video", "path")

    @cached_property
    def adapter(self) -> Any:
        """What checks the parameter's values: a pydantic adapter, built once."""
        from pydantic import TypeAdapter

        from mezzotint.literals import input_annotation

        return TypeAdapter(input_annotation(self))


class NodeDoc(_Strict):
    """A node of the graph: `use` says which type, `inputs` what goes in."""

    use: str
    inputs: dict[str, Any] = {}
    description: str = ""
    ui: Any = None


class LinkDoc(_Strict):
    ref: str


class GraphDoc(_Strict):
    """A graph file. Unknown keys are errors; `ui` is kept and ignored."""

    schema_: str | None = Field(default=None, alias="$schema")
    format: Literal[1]
    name: str = ""
    description: str = ""
    inputs: dict[Name, InputDoc] = {}
    nodes: dict[Name, NodeDoc]
    outputs: dict[Name, LinkDoc] = {}
    ui: Any = None

    def to_json(self) -> dict[str, Any]:
        """The document as it would stand in a file."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


@dataclass(frozen=True)
class Ref:
    """A link: `node.port`, `node` alone where it has one output, or `inputs.name`."""

    node: str
    port: str | None = None

    def __str__(self) -> str:
        return f"{self.node}.{self.port}" if self.port else self.node


_REF = re.compile(r"^([a-z][a-z0-9_]*)(?:\.([a-z][a-z0-9_]*))?$")


def parse_ref(text: str) -> Ref | None:
    """`node.port` or `node` as a link, or None if it is neither."""
    match = _REF.match(text)
    return Ref(match[1], match[2]) if match else None


def parse_value(value: Any, pointer: str, problems: list[Problem], depth: int = 0) -> Any:
    """A JSON value with its links turned into `Ref`s and `{"literal": …}` unwrapped."""
    if depth > MAX_DEPTH:
        problems.append(Problem(pointer, f"nested deeper than {MAX_DEPTH} levels", "too_deep"))
        return None
    if isinstance(value, list):
        return [parse_value(v, f"{pointer}/{i}", problems, depth + 1) for i, v in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        if "literal" in value:
            return value["literal"]
        if "ref" in value:
            ref = parse_ref(value["ref"]) if isinstance(value["ref"], str) else None
            if ref is None:
                problems.append(
                    Problem(f"{pointer}/ref", "bad link", "bad_link", got=_short(value["ref"]),
                            wanted='"node.port", "node" or "inputs.name" (or wrap the object as {"literal": …})')
                )  # fmt: skip
            return ref
    return {k: parse_value(v, f"{pointer}/{escape_pointer(k)}", problems, depth + 1) for k, v in value.items()}


def refs_in(tree: Any) -> list[Ref]:
    """All links in a parsed value, in document order."""
    if isinstance(tree, Ref):
        return [tree]
    if isinstance(tree, list):
        return [r for v in tree for r in refs_in(v)]
    if isinstance(tree, dict):
        return [r for v in tree.values() for r in refs_in(v)]
    return []


def escape_pointer(key: str) -> str:
    """One key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def parse_json(text: str | bytes, file: str = "") -> Any:
    """JSON with the traps closed: duplicate keys, depth and size are errors; NaN and 1e999 are refused.

    Raises: GraphError: naming the line and column, or the key.
    """
    if len(text) > MAX_BYTES:
        raise _fail(file, f"{len(text):,} bytes; a graph file has at most {MAX_BYTES:,}", "too_large")
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        data = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:  # half of a surrogate pair is no text, and nothing could write it
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except RecursionError:
        raise _fail(file, "JSON nested too deeply", "too_deep") from None
    except UnicodeDecodeError as error:
        raise _fail(file, f"not UTF-8 text: byte {error.start}", "syntax") from None
    except UnicodeEncodeError:
        raise _fail(file, "not valid JSON: a string has half of a surrogate pair", "syntax") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _fail(file, f"not valid JSON: {error.msg} at {where}", "syntax") from None
    except _BadJsonError as error:
        raise _fail(file, str(error), "syntax") from None
    except ValueError:  # more digits than Python converts
        raise _fail(file, "an integer has too many digits", "syntax") from None


class _BadJsonError(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise _BadJsonError(f"the key {twice!r} stands twice in one object")
    return found


def _no_constant(word: str) -> Any:
    raise _BadJsonError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _BadJsonError(f"the number {digits[:40]} is too large")
    return value


def _fail(file: str, message: str, code: str, pointer: str = "") -> GraphError:
    return GraphError([Problem(pointer, message, code, file=file)])


def _short(value: Any, limit: int = 80) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def read_graph(path: Path) -> GraphDoc:
    """Read and parse one graph file.

    Raises: UserError: if it is missing or unreadable. GraphError: every syntax problem in it.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device might never end
            raise UserError(f"cannot read the graph {path}: it is not a file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _fail(str(path), f"{size:,} bytes; a graph file has at most {MAX_BYTES:,}", "too_large")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the graph {path}: {error.strerror or error}") from error
    return parse_doc(parse_json(data, str(path)), str(path))


def parse_doc(data: Any, file: str = "") -> GraphDoc:
    """A document from parsed JSON.

    Raises: GraphError: every problem, each with its JSON pointer.
    """
    if not isinstance(data, dict):
        raise _fail(file, f"a graph is a JSON object, got {type(data).__name__}", "syntax")
    _check_depth(data, file)
    try:
        return GraphDoc.model_validate(data)
    except ValidationError as error:
        # Of a number's two kinds each reports the same value; once is enough.
        problems = {p.pointer: p for p in (_problem(e, file) for e in error.errors())}
        raise GraphError(list(problems.values())) from None


def _check_depth(data: Any, file: str) -> None:
    """Bound the depth, so that all that comes after may recurse."""
    waiting: list[tuple[Any, int, Any]] = [(data, 0, ())]
    while waiting:
        value, depth, trail = waiting.pop()
        if depth > MAX_DEPTH:
            keys: list[str] = []
            while trail:
                trail, key = trail
                keys.insert(0, escape_pointer(str(key)))
            shown = "/".join(["", *keys[:4]])  # the first steps tell where to look
            raise _fail(file, f"nested deeper than {MAX_DEPTH} levels", "too_deep", shown)
        items = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [(v, depth + 1, (trail, k)) for k, v in items if isinstance(v, (dict, list))]


def _problem(error: Any, file: str) -> Problem:
    loc = [str(part) for part in error["loc"] if part != "[key]"]
    if len(loc) > 1 and loc[-1] in ("int", "float") and loc[0] == "inputs":
        loc.pop()
    pointer = "".join("/" + escape_pointer(part) for part in loc)
    kind = error["type"]
    if kind == "extra_forbidden":
        return Problem(pointer, f"unknown key {loc[-1]!r}", "unknown_key", file=file, suggestion=_near_key(loc))
    if kind == "missing":
        return Problem(pointer, f"{loc[-1]!r} is missing", "missing_key", file=file)
    got = _short(error["input"]) if kind != "string_pattern_mismatch" else repr(error["input"])
    return Problem(pointer, error["msg"][0].lower() + error["msg"][1:], "bad_value", file=file, got=got)


def _near_key(loc: list[str]) -> str:
    from mezzotint.errors import did_you_mean

    model: type[BaseModel] = GraphDoc
    if len(loc) > 1:
        inside: dict[str, type[BaseModel]] = {"nodes": NodeDoc, "outputs": LinkDoc}
        model = inside.get(loc[0], InputDoc)
    return did_you_mean(loc[-1], [f.alias or name for name, f in model.model_fields.items()])
