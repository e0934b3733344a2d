"""Checking JSON values against what a node's input or a graph's parameter wants, and making them canonical."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mezzotint.document import InputDoc, escape_pointer
from mezzotint.errors import Problem, UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mezzotint.document import GraphDoc
    from mezzotint.paths import FileAccess
    from mezzotint.signature import EdgeType, InputSpec

__all__ = ["FileRef", "Trusted", "bind_inputs", "canonical", "type_name"]


class Trusted(str):
    """A string that the caller gave, not the graph: as a path it may lie anywhere."""

    __slots__ = ()


@dataclass(frozen=True)
class FileRef:
    """A file or model source that an input names, found on disk. `text` is what was written."""

    text: str
    path: str
    kind: Literal["file", "source"]


def type_name(value: Any) -> str:
    """The JSON word for a value's type."""
    words = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return "null" if value is None else words.get(type(value), type(value).__name__)


def canonical(
    spec: InputSpec,
    value: Any,
    pointer: str,
    problems: list[Problem],
    access: FileAccess,
    resolve_source: Callable[[str], Any],
) -> Any:
    """`value` checked against `spec`, with one form for equal values (1 and 1.0 for a number), files resolved."""
    if value is None and spec.type.optional:
        return None
    if spec.holds_ports:
        return _port_literal(spec.type, value, pointer, problems)
    if spec.type.name in ("file", "source"):
        return _file(spec, value, pointer, problems, access, resolve_source)
    if spec.type.name == "number" and type(value) is int:
        value = float(value)
    return _scalar(spec.adapter, value, pointer, problems)


def _port_literal(wanted: EdgeType, value: Any, pointer: str, problems: list[Problem]) -> Any:
    if wanted.item is not None and value == []:
        return []
    got = json.dumps(value, default=str)[:80]
    problems.append(Problem(pointer, "a port takes a link", "wrong_type", got=got, wanted=f"a link to {wanted}"))
    return None


def _file(
    spec: InputSpec,
    value: Any,
    pointer: str,
    problems: list[Problem],
    access: FileAccess,
    resolve_source: Callable[[str], Any],
) -> FileRef | None:
    kind: Literal["file", "source"] = "source" if spec.type.name == "source" else "file"
    if not isinstance(value, str):
        problems.append(Problem(pointer, f"a {kind} is named by a string", "wrong_type", got=type_name(value)))
        return None
    try:
        found = resolve_source(str(value)) if kind == "source" else None
        if found is not None:
            return FileRef(str(value), str(found), kind)
        found = access.resolve_trusted(value) if isinstance(value, Trusted) else access.resolve(value)
    except UserError as error:
        problems.append(Problem(pointer, str(error), "bad_file"))
        return None
    # A source keeps its path as its name: a recipe outlives the folder that a relative path was meant in.
    return FileRef(str(found) if kind == "source" else str(value), str(found), kind)


def _scalar(adapter: Any, value: Any, pointer: str, problems: list[Problem]) -> Any:
    from pydantic import ValidationError

    try:
        if isinstance(value, (list, dict)):
            return adapter.dump_python(adapter.validate_json(json.dumps(value), strict=True), mode="json")
        return adapter.dump_python(adapter.validate_python(value, strict=True), mode="json")
    except ValidationError as error:
        for item in error.errors():
            where = pointer + "".join("/" + escape_pointer(str(p)) for p in item["loc"] if isinstance(p, int))
            message = item["msg"][0].lower() + item["msg"][1:]
            words = item.get("ctx", {}).get("expected", "")
            near = did_you_mean(str(value), [w.strip(" '") for w in words.replace(" or ", ",").split(",")])
            got = json.dumps(item["input"], default=str)[:80]
            problems.append(Problem(where, message, "bad_value", got=got, suggestion=near))
        return None


def input_annotation(doc: InputDoc) -> Any:
    """The annotation that pydantic checks a graph parameter against."""
    from pydantic import Field

    kinds: dict[str, Any] = {
        "string": str, "integer": int, "number": float, "boolean": bool, "object": dict[str, Any],
    }  # fmt: skip
    inner = list[input_annotation(doc.items) if doc.items else Any] if doc.type == "array" else kinds[doc.type]  # type: ignore[misc]
    limits = {
        "ge": doc.minimum, "le": doc.maximum, "gt": doc.exclusive_minimum, "lt": doc.exclusive_maximum,
        "min_length": doc.min_items if doc.type == "array" else doc.min_length,
        "max_length": doc.max_items if doc.type == "array" else doc.max_length,
        "pattern": doc.pattern,
    }  # fmt: skip
    given = {k: v for k, v in limits.items() if v is not None}
    return Annotated[inner, Field(**given)] if given else inner


def bind_inputs(
    doc: GraphDoc,
    given: Mapping[str, Any],
    file: str,
    pointer: str = "/inputs",
    came_along: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The graph's parameters: what the caller gave over what came along with the graph over the defaults, checked.

    Only the caller's strings are trusted as paths.

    Raises: GraphError: every unknown, missing or wrong parameter.
    """
    from mezzotint.errors import GraphError

    problems: list[Problem] = []
    inside = {k: v for k, v in (came_along or {}).items() if k not in given}
    for name in (*given, *inside):
        if name not in doc.inputs:
            near = did_you_mean(name, doc.inputs)
            problems.append(Problem(f"{pointer}/{name}", f"the graph has no input {name!r}", "unknown_input", suggestion=near))
    bound = {}
    for name, wanted in doc.inputs.items():
        where = f"{pointer}/{name}"
        if name in given:
            bound[name] = _trusted(check_input(wanted, given[name], where, problems))
        elif name in inside:
            bound[name] = check_input(wanted, inside[name], where, problems)
        elif wanted.required:
            problems.append(Problem(where, f"the input {name!r} must be given", "missing_input", wanted=wanted.type))
        else:
            bound[name] = wanted.default
    if problems:
        from dataclasses import replace

        raise GraphError([replace(p, file=file) for p in problems])
    return bound


def check_input(doc: InputDoc, value: Any, pointer: str, problems: list[Problem]) -> Any:
    """One parameter's value against its declaration."""
    from pydantic import TypeAdapter

    if value is None and not doc.required and doc.default is None:
        return None
    if doc.type not in _KINDS:  # a port: only a parent graph gives it
        return value
    if doc.type == "number" and type(value) is int:
        value = float(value)
    if doc.enum is not None and value not in doc.enum:
        words = ", ".join(json.dumps(w) for w in doc.enum)
        near = did_you_mean(str(value), [str(w) for w in doc.enum])
        got = json.dumps(value, default=str)
        problems.append(Problem(pointer, "not one of the choices", "bad_value", got=got, wanted=words, suggestion=near))
        return None
    return _scalar(TypeAdapter(input_annotation(doc)), value, pointer, problems)


_KINDS = ("string", "integer", "number", "boolean", "array", "object")


def _trusted(value: Any) -> Any:
    if isinstance(value, str):
        return Trusted(value)
    if isinstance(value, list):
        return [_trusted(v) for v in value]
    if isinstance(value, dict):
        return {k: _trusted(v) for k, v in value.items()}
    return value
