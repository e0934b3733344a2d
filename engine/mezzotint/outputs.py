"""A graph's outputs as files. Encoding is a keyed step like any other, so a cached run copies bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mezzotint.embed import KEYWORD
from mezzotint.errors import PluginError, UserError
from mezzotint.events import OutputWritten
from mezzotint.plan import StepOutput, step_outputs
from mezzotint.store import MISS
from mezzotint.values import Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from mezzotint.events import Event
    from mezzotint.plan import Plan
    from mezzotint.runtime import Runtime

__all__ = ["OutputFile", "OutputInfo", "encoded_outputs", "write_key", "write_output"]


@dataclass(frozen=True)
class OutputInfo:
    """What a writer may want to know. suffix: of the file, without the dot. options: the writer's own, as JSON."""

    output: str
    suffix: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputFile:
    """One file that a run wrote."""

    output: str
    path: Path
    sha256: str
    bytes: int


def write_key(plan: Plan, name: str, meta: str) -> str:
    """The content key of one encoded output: of the values in it, and of the graph that goes into it."""
    tree = json.dumps(plan.outputs[name], default=lambda o: [o.key, o.port] if isinstance(o, StepOutput) else str(o))
    return hashlib.sha256(f"output\0{tree}\0{meta}".encode()).hexdigest()


def _part_key(key: str, index: int) -> str:
    return hashlib.sha256(f"{key}\0{index}".encode()).hexdigest()


def encoded_outputs(plan: Plan, runtime: Runtime, meta: str) -> dict[str, list[dict[str, Any]]]:
    """Those outputs whose files are in the store already: their parts (suffix, key), by output name."""
    keys = {write_key(plan, name, meta): name for name in plan.outputs if any(step_outputs(plan.outputs[name]))}
    found: dict[str, list[dict[str, Any]]] = {}
    for key in runtime.store.contains_many(keys):
        entry = runtime.store.get(key)
        if entry is not MISS and runtime.store.contains_many(p["key"] for p in entry) == {p["key"] for p in entry}:
            found[keys[key]] = entry
    return found


def write_output(
    plan: Plan,
    name: str,
    runtime: Runtime,
    folder: Path,
    meta: str,
    stem: str,
    parts: list[dict[str, Any]] | None,
    value: Callable[[], Any],
    emit: Callable[[Event], None],
) -> list[OutputFile]:
    """Put one output's files in place, from the store (`parts`) or by encoding `value()`."""
    key = write_key(plan, name, meta)
    cached = parts is not None
    data: dict[str, bytes] = {}
    if parts is None:
        parts, data = _encode(name, value(), runtime, key, meta)
    written = []
    for i, part in enumerate(parts):
        path = folder / _file_name(f"{stem}-{name}-{key[:8]}", part, i, len(parts))
        content = data.get(part["key"]) or runtime.store.get_bytes(part["key"])
        if content is None or content is MISS:
            return write_output(plan, name, runtime, folder, meta, stem, None, value, emit)
        _place(path, content)
        written.append(OutputFile(name, path, hashlib.sha256(content).hexdigest(), len(content)))
        emit(OutputWritten(name, str(path), len(content), cached))
    return written


def _file_name(stem: str, part: Mapping[str, Any], index: int, count: int) -> str:
    """One file beside the others, or its place in the folder that its writer makes."""
    if part.get("file"):
        return f"{stem}/{part['file']}"
    number = f"-{index:03}" if count > 1 else ""
    return f"{stem}{number}.{part['suffix']}"


def _place(path: Path, content: bytes) -> None:
    from mezzotint.atomic import write_bytes

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _encode(
    name: str, value: Any, runtime: Runtime, key: str, meta: str
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    parts: list[dict[str, Any]] = []
    data: dict[str, bytes] = {}
    for file in _files(name, value, runtime):
        content = file.content
        if file.suffix == "png":
            from mezzotint.png import add_text

            content = add_text(content, KEYWORD, meta)
        part = _part_key(key, len(parts))
        parts.append({"suffix": file.suffix, "key": part, "file": file.name})
        data[part] = content
        runtime.keep(partial(runtime.store.put_bytes, part, content, file.media_type))
    runtime.keep(partial(runtime.store.put, key, parts, node="output"))
    return parts, data


@dataclass(frozen=True)
class _File:
    suffix: str
    media_type: str
    content: bytes
    name: str = ""


def _files(name: str, value: Any, runtime: Runtime) -> list[_File]:
    """The encoded files of a value: one or more for a port, one JSON file for plain values."""
    if isinstance(value, list) and any(isinstance(v, Port) for v in value):
        return [file for item in value for file in _files(name, item, runtime)]
    if not isinstance(value, Port):
        return [_File("json", "application/json", (json.dumps(value, indent=2, default=str) + "\n").encode())]
    writer = runtime.registry.writer(type(value))
    if writer is None:
        raise PluginError(f"output {name!r}: no plugin can write a {value.port_name} to a file")
    contents = writer.fn(value, OutputInfo(name, writer.suffix))
    if isinstance(contents, dict):
        return [_in_folder(path, content, value) for path, content in contents.items()]
    if not isinstance(contents, list) or not all(isinstance(c, bytes) for c in contents):
        got = type(contents).__name__
        raise PluginError(f"the writer of {value.port_name} returned {got}, wanted a list of bytes, or a dict by path")
    return [_File(writer.suffix, writer.media_type, content) for content in contents]


def _in_folder(path: str, content: bytes, value: Port) -> _File:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not isinstance(content, bytes):
        raise PluginError(f"the writer of {value.port_name} gave {path!r}; wanted a path inside the folder, and bytes")
    return _File(pure.suffix.removeprefix("."), "application/octet-stream", content, pure.as_posix())
