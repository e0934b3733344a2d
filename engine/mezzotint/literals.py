"""Checking JSON values against what a node's input or a graph's parameter wants, and making them canonical."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mezzotint.document import InputDoc, escape_pointer
from mezzotint.errors import GraphError, MezzotintError, Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mezzotint.document import GraphDoc
    from mezzotint.paths import FileAccess
    from mezzotint.signature import EdgeType, InputSpec

__all__ = ["FileRef", "Trusted", "bind_inputs", "canonical", "check_declaration", "check_input", "type_name"]


class Trusted(str):
    """A string that the caller gave, not the graph: as a path it may lie anywhere."""

    __slots__ = ()


@dataclass(frozen=True)
class FileRef:
    """A file or model source that an input names, found on disk.

    text: what was written. digest: of its content when the run was planned; a plan's steps have it.
    """

    text: str
    path: str
    kind: Literal["file", "source"]
    digest: str = ""


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
    if spec.holds_files:
        return _files(spec.type, value, pointer, problems, access, resolve_source)
    return _scalar(spec.adapter, value, pointer, problems)


def _port_literal(wanted: EdgeType, value: Any, pointer: str, problems: list[Problem]) -> Any:
    if wanted.item is not None and value == []:
        return []
    problems.append(
        Problem(pointer, "a port takes a link", "wrong_type", got=_shown(value), wanted=f"a link to {wanted}")
    )
    return None


def _files(
    wanted: EdgeType,
    value: Any,
    pointer: str,
    problems: list[Problem],
    access: FileAccess,
    resolve_source: Callable[[str], Any],
) -> Any:
    """The file, or the list of files, that a value names."""
    if value is None and wanted.optional:
        return None
    if wanted.item is None:
        kind: Literal["file", "source"] = "source" if wanted.name == "source" else "file"
        return _file(kind, value, pointer, problems, access, resolve_source)
    if not isinstance(value, list):
        problems.append(Problem(pointer, "not a list", "wrong_type", got=type_name(value), wanted=str(wanted)))
        return None
    more = (problems, access, resolve_source)
    return [_files(wanted.item, part, f"{pointer}/{i}", *more) for i, part in enumerate(value)]


def _file(
    kind: Literal["file", "source"],
    value: Any,
    pointer: str,
    problems: list[Problem],
    access: FileAccess,
    resolve_source: Callable[[str], Any],
) -> FileRef | None:
    if isinstance(value, FileRef):  # found already, as a file parameter of the graph
        return value if value.kind == kind else FileRef(value.path, value.path, kind)
    if not isinstance(value, str):
        problems.append(Problem(pointer, f"a {kind} is named by a string", "wrong_type", got=type_name(value)))
        return None
    try:
        found = resolve_source(str(value)) if kind == "source" else None
        if found is not None:
            return FileRef(str(value), str(found), kind)
        found = access.resolve_trusted(value) if isinstance(value, Trusted) else access.resolve(value)
    except MezzotintError as error:  # a plugin that resolves sources may fail, too
        problems.append(Problem(pointer, str(error), "bad_file"))
        return None
    # A source keeps its path as its name: a recipe outlives the folder that a relative path was meant in.
    return FileRef(str(found) if kind == "source" else str(value), str(found), kind)


def _scalar(adapter: Any, value: Any, pointer: str, problems: list[Problem]) -> Any:
    from pydantic import ValidationError

    try:
        # As JSON, where a list may become a tuple and yet "5" no number.
        text = json.dumps(value, allow_nan=False)
        found = adapter.dump_python(adapter.validate_json(text, strict=True), mode="json")
        if isinstance(found, (float, list, dict)):
            json.dumps(found, allow_nan=False)  # an integer of 400 digits is an infinite float
        return found
    except ValidationError as error:
        for item in error.errors():
            where = pointer + "".join("/" + escape_pointer(str(p)) for p in item["loc"] if isinstance(p, int))
            message = item["msg"][0].lower() + item["msg"][1:]
            if item["type"] == "json_invalid":  # we wrote that JSON: only a string can be at fault
                message = "not JSON: a string has half of a surrogate pair"
            words = item.get("ctx", {}).get("expected", "")
            near = did_you_mean(str(value), [w.strip(" '") for w in str(words).replace(" or ", ",").split(",")])
            problems.append(Problem(where, message, "bad_value", got=_shown(item["input"]), suggestion=near))
    except (TypeError, ValueError, RecursionError) as error:  # a caller in Python may give anything
        what = "nested too deeply" if isinstance(error, RecursionError) else "not JSON"
        problems.append(Problem(pointer, what, "bad_value", got=f"{type_name(value)}: {error}"))
    return None


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:80]


def input_annotation(doc: InputDoc) -> Any:
    """The annotation that pydantic checks a graph parameter against.

    Raises: TypeError, ValueError: the limits do not fit the type.
    """
    from pydantic import Field

    kinds: dict[str, Any] = {
        "string": str, "integer": int, "number": float, "boolean": bool,
        "array": list[Any], "object": dict[str, Any],
    }  # fmt: skip
    limits: dict[str, Any] = {
        "ge": doc.minimum, "le": doc.maximum, "gt": doc.exclusive_minimum, "lt": doc.exclusive_maximum,
        "min_length": doc.min_items if doc.type == "array" else doc.min_length,
        "max_length": doc.max_items if doc.type == "array" else doc.max_length,
        "pattern": doc.pattern,
    }  # fmt: skip
    given = {k: v for k, v in limits.items() if v is not None}
    return Annotated[kinds[doc.type], Field(**given)] if given else kinds[doc.type]


def check_declaration(doc: InputDoc, pointer: str, problems: list[Problem]) -> None:
    """Whether a graph parameter's own words make sense together: its limits, its items, its default."""
    before = len(problems)
    for name, kinds in _FITS.items():
        if getattr(doc, name) is not None and doc.type not in kinds:
            word = InputDoc.model_fields[name].alias or name
            text = f"{word!r} means nothing for the type {doc.type!r}"
            problems.append(Problem(f"{pointer}/{word}", text, "bad_value", wanted=" or ".join(kinds)))
    if doc.type in _KINDS and len(problems) == before:
        try:
            _ = doc.adapter
        except Exception as error:  # pydantic says it in several ways; a pattern's own message is the clearest
            word = "pattern" if doc.pattern is not None else "type"
            text = str(error).splitlines()[-1].strip()
            problems.append(Problem(f"{pointer}/{word}", f"cannot be checked: {text}", "bad_value"))
    if doc.items is not None:
        check_declaration(doc.items, f"{pointer}/items", problems)
    if len(problems) == before and not doc.required and doc.default is not None:
        check_input(doc, doc.default, f"{pointer}/default", problems)


_NUMBERS = ("integer", "number")
_FITS = {
    "minimum": _NUMBERS,
    "maximum": _NUMBERS,
    "exclusive_minimum": _NUMBERS,
    "exclusive_maximum": _NUMBERS,
    "min_length": ("string",),
    "max_length": ("string",),
    "pattern": ("string",),
    "format": ("string",),
    "min_items": ("array",),
    "max_items": ("array",),
    "items": ("array",),
}


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
    problems: list[Problem] = []
    inside = {k: v for k, v in (came_along or {}).items() if k not in given}
    for name in (*given, *inside):
        if name not in doc.inputs:
            near = did_you_mean(name, doc.inputs)
            where, text = f"{pointer}/{escape_pointer(name)}", f"the graph has no input {name!r}"
            wanted = ", ".join(doc.inputs) or "no inputs"
            problems.append(Problem(where, text, "unknown_input", wanted=wanted, suggestion=near))
    bound = {}
    for name, declared in doc.inputs.items():
        where = f"{pointer}/{name}"
        if name in given:
            bound[name] = _trusted(check_input(declared, given[name], where, problems))
        elif name in inside:
            bound[name] = check_input(declared, inside[name], where, problems)
        elif declared.required:
            text = f"the input {name!r} must be given"
            problems.append(Problem(where, text, "missing_input", wanted=declared.type))
        else:
            bound[name] = check_input(declared, declared.default, where, problems)
    if problems:
        raise GraphError([replace(p, file=file) for p in problems])
    return bound


def check_input(doc: InputDoc, value: Any, pointer: str, problems: list[Problem]) -> Any:
    """One parameter's value against its declaration, in its one form."""
    if value is None and not doc.required and doc.default is None:
        return None
    if doc.type not in _KINDS:
        if value is not None:
            text = "a port takes a link, and only a graph that contains this one can give it"
            wanted = f"a link to {doc.type}"
            problems.append(Problem(pointer, text, "wrong_type", got=_shown(value), wanted=wanted))
        return None
    if doc.enum is not None and value not in doc.enum:
        words = ", ".join(json.dumps(w) for w in doc.enum)
        near = did_you_mean(str(value), [str(w) for w in doc.enum])
        text = "not one of the choices"
        problems.append(Problem(pointer, text, "bad_value", got=_shown(value), wanted=words, suggestion=near))
        return None
    found = _scalar(doc.adapter, value, pointer, problems)
    if isinstance(found, list) and doc.items is not None:
        return [check_input(doc.items, v, f"{pointer}/{i}", problems) for i, v in enumerate(found)]
    return found


_KINDS = ("string", "integer", "number", "boolean", "array", "object")


def _trusted(value: Any) -> Any:
    if isinstance(value, str):
        return Trusted(value)
    if isinstance(value, list):
        return [_trusted(v) for v in value]
    if isinstance(value, dict):
        return {k: _trusted(v) for k, v in value.items()}
    return value
