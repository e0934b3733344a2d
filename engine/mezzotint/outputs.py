"""A graph's outputs as files. Encoding is a keyed step like any other, so a cached run copies bytes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mezzotint.embed import KEYWORD
from mezzotint.errors import PluginError, StoreError, UserError
from mezzotint.events import OutputWritten, Warned
from mezzotint.plan import StepOutput, step_outputs
from mezzotint.store import MISS
from mezzotint.values import Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from mezzotint.events import Event
    from mezzotint.plan import Plan
    from mezzotint.runtime import Runtime

__all__ = ["OutputFile", "OutputFolder", "OutputInfo"]

_UNSAFE = re.compile(r"[^\w.-]+")


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


class OutputFolder:
    """Where one run's outputs go. stem: how their names begin. meta: the graph and inputs, for inside pictures."""

    def __init__(
        self, plan: Plan, runtime: Runtime, folder: Path, stem: str, meta: str, emit: Callable[[Event], None]
    ) -> None:
        self.plan = plan
        self.runtime = runtime
        self.folder = folder
        self.stem = _UNSAFE.sub("_", stem).lstrip(".") or "graph"
        self.meta = meta
        self.emit = emit

    def key(self, name: str) -> str:
        """The content key of one encoded output: of the values in it, and of the graph that goes into it."""
        from mezzotint import __version__

        tree = json.dumps(self.plan.outputs[name], default=_key_part)
        return hashlib.sha256(f"output\0{__version__}\0{tree}\0{self.meta}".encode()).hexdigest()

    def encoded(self) -> dict[str, list[dict[str, Any]]]:
        """Those outputs whose files are in the store already: their parts (suffix, key), by output name."""
        store = self.runtime.store
        keys = {name: self.key(name) for name, tree in self.plan.outputs.items() if any(step_outputs(tree))}
        found: dict[str, list[dict[str, Any]]] = {}
        try:
            known = store.contains_many(set(keys.values()))
            for name, key in keys.items():
                entry = store.get(key) if key in known else MISS
                if entry is not MISS and len(store.contains_many({p["key"] for p in entry})) == len(entry):
                    found[name] = entry
        except StoreError as error:
            self.warn(error)
        return found

    def write(self, name: str, parts: list[dict[str, Any]] | None, value: Callable[[], Any]) -> list[OutputFile]:
        """Put one output's files in place, from the store (`parts`) or by encoding `value()`."""
        if parts is not None:
            written = self._copied(name, parts)
            if written is not None:
                return written
        key = self.key(name)
        files = _files(name, value(), self.runtime)
        written = []
        parts = []
        for i, file in enumerate(files):
            content = file.content
            if file.suffix == "png":
                from mezzotint.png import add_text

                content = add_text(content, KEYWORD, self.meta)
            part = {"suffix": file.suffix, "key": _part_key(key, i), "file": file.name}
            parts.append(part)
            path = self._path(name, part, i, len(files))
            _place(path, content)
            written.append(OutputFile(name, path, hashlib.sha256(content).hexdigest(), len(content)))
            self.emit(OutputWritten(name, str(path), len(content)))
            self._keep(name, partial(self.runtime.store.put_bytes, part["key"], content, file.media_type))
        self._keep(name, partial(self.runtime.store.put, key, parts, node="output"))
        return written

    def _copied(self, name: str, parts: list[dict[str, Any]]) -> list[OutputFile] | None:
        """The files out of the store, or None if it lost one of them meanwhile."""
        written = []
        for i, part in enumerate(parts):
            path = self._path(name, part, i, len(parts))
            _make_folder(path)
            try:
                copied = self.runtime.store.copy_to(part["key"], path)
            except StoreError as error:
                self.warn(error)
                return None
            if copied is MISS:
                return None
            written.append(OutputFile(name, path, copied.sha256, copied.size))
            self.emit(OutputWritten(name, str(path), copied.size, cached=True))
        return written

    def _path(self, name: str, part: Mapping[str, Any], index: int, count: int) -> Path:
        return self.folder / _file_name(f"{self.stem}-{name}-{self.key(name)[:8]}", part, index, count)

    def _keep(self, name: str, put: Callable[[], Any]) -> None:
        """Store what only saves time: a store that fails loses nothing."""
        if not all(self.plan.steps[o.key].cacheable for o in step_outputs(self.plan.outputs[name])):
            return
        try:
            put()
        except StoreError as error:
            self.warn(error)

    def warn(self, error: StoreError) -> None:
        """Say that the store fails."""
        self.emit(Warned(f"results cannot be kept for later runs: {error}"))


def _key_part(value: Any) -> Any:
    return {"\0step": value.key, "port": value.port} if isinstance(value, StepOutput) else str(value)


def _part_key(key: str, index: int) -> str:
    return hashlib.sha256(f"{key}\0{index}".encode()).hexdigest()


def _file_name(stem: str, part: Mapping[str, Any], index: int, count: int) -> str:
    """One file beside the others, or its place in the folder that its writer makes."""
    if part.get("file"):
        return f"{stem}/{part['file']}"
    number = f"-{index:03}" if count > 1 else ""
    return f"{stem}{number}.{part['suffix']}"


def _place(path: Path, content: bytes) -> None:
    from mezzotint.atomic import write_bytes

    _make_folder(path)
    try:
        write_bytes(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent}: {error.strerror or error}") from error


@dataclass(frozen=True)
class _File:
    suffix: str
    media_type: str
    content: bytes
    name: str = ""


def _files(name: str, value: Any, runtime: Runtime) -> list[_File]:
    """The encoded files of a value: one or more for a port, one JSON file for plain values."""
    if isinstance(value, (list, tuple)) and _holds_ports(value):
        return [file for item in value for file in _files(name, item, runtime)]
    if not isinstance(value, Port):
        return [_File("json", "application/json", _json(name, value))]
    writer = runtime.registry.writer(type(value))
    if writer is None:
        raise PluginError(f"output {name!r}: no plugin can write a {value.port_name} to a file")
    contents = writer.fn(value, OutputInfo(name, writer.suffix))
    if isinstance(contents, dict):
        return [_in_folder(path, content, value) for path, content in contents.items()]
    if not isinstance(contents, list) or not all(isinstance(c, bytes) for c in contents):
        got, wanted = type(contents).__name__, "a list of bytes, or a dict by path"
        raise PluginError(f"the writer of {value.port_name} returned {got}, wanted {wanted}")
    return [_File(writer.suffix, writer.media_type, content) for content in contents]


def _in_folder(path: str, content: bytes, value: Port) -> _File:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not isinstance(content, bytes):
        wanted = "a path inside the folder, and bytes"
        raise PluginError(f"the writer of {value.port_name} gave {path!r}; wanted {wanted}")
    return _File(pure.suffix.removeprefix("."), "application/octet-stream", content, pure.as_posix())


def _holds_ports(value: Any) -> bool:
    return isinstance(value, Port) or (isinstance(value, (list, tuple)) and any(_holds_ports(v) for v in value))


def _json(name: str, value: Any) -> bytes:
    try:
        return (json.dumps(_plain(value), indent=2, allow_nan=False) + "\n").encode()
    except TypeError as error:
        raise PluginError(f"output {name!r} cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    """JSON has no word for NaN and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value
