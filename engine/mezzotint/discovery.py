"""Which plugins are installed, and what each gave when it last loaded: known from a cached index, without imports.

The index is a JSON file in the cache folder. A plugin's entry holds as long as its distribution stays the same, or
its source where that is editable. A damaged or unwritable index costs time, nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.atomic import write_bytes
from mezzotint.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Entry", "Found", "Index", "read_preferences", "source_digest", "source_stamp"]

FORMAT = 3


@dataclass(frozen=True)
class Found:
    """An entry point of the group `mezzotint.plugins`. root: its source, where that is editable."""

    name: str
    target: str
    package: str
    version: str
    stamp: str
    root: str = ""

    @property
    def key(self) -> str:
        return f"{self.package}:{self.name}"

    @property
    def module(self) -> str:
        return self.target.partition(":")[0]


@dataclass
class Entry:
    """What a plugin gave when it last loaded; `gives` maps "nodes", "types", "writers", "loaders", "samplers",
    "interpreters" and "hooks" to names. error, traceback: why it did not load, if so; `gives` is then of a time
    before."""

    stamp: str
    gives: dict[str, list[str]] = field(default_factory=dict)
    error: str = ""
    traceback: str = ""


class Index:
    """The installed plugins and their entries. `save` writes the file if anything changed."""

    def __init__(self, folder: Path | None = None) -> None:
        environment = f"{sys.prefix}|{sys.version}|{FORMAT}"
        name = f"plugins-{hashlib.sha256(environment.encode()).hexdigest()[:16]}.json"
        self.path = (folder or cache_folder()) / name
        self.stamp = _installed_stamp()
        self.found: list[Found] = []
        self.entries: dict[str, Entry] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            self._read(json.loads(self.path.read_bytes()))
        if not self.found:
            self.found = _discover()
            self._changed = True

    def _read(self, data: dict[str, Any]) -> None:
        entries = {key: Entry(**entry) for key, entry in data["entries"].items()}
        found = [Found(**each) for each in data["found"]]
        self.entries = entries
        if data["stamp"] == self.stamp:
            self.found = found

    def stamp_of(self, found: Found) -> str:
        """What an entry's stamp must be to hold. A plugin that failed is tried again after any installation."""
        entry = self.entries.get(found.key)
        stamp = f"{found.stamp}|{source_stamp(Path(found.root)) if found.root else ''}"
        return f"{stamp}|{self.stamp}" if entry is not None and entry.error else stamp

    def entry(self, found: Found) -> Entry | None:
        """The plugin's entry, or None where it is missing or stale."""
        entry = self.entries.get(found.key)
        return entry if entry is not None and entry.stamp == self.stamp_of(found) else None

    def put(self, found: Found, gives: dict[str, list[str]] | None, error: str = "", traceback: str = "") -> None:
        """Note what a plugin gave, or that it failed."""
        before = self.entries.get(found.key)
        entry = Entry("", gives if gives is not None else (before.gives if before else {}), error, traceback)
        self.entries[found.key] = entry
        entry.stamp = self.stamp_of(found)
        self._changed = self._changed or entry != before

    def save(self) -> None:
        """Write the index if it changed."""
        if not self._changed:
            return
        keys = {f.key for f in self.found}
        data = {
            "stamp": self.stamp,
            "found": [asdict(f) for f in self.found],
            "entries": {key: asdict(entry) for key, entry in self.entries.items() if key in keys},
        }
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, json.dumps(data).encode())
        self._changed = False


def cache_folder() -> Path:
    """MEZZOTINT_CACHE, or the platform's cache folder."""
    chosen = os.environ.get("MEZZOTINT_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("mezzotint")


def _installed_stamp() -> str:
    """Changes whenever a distribution is installed, removed or installed anew."""
    seen = hashlib.sha256()
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as files:
            for file in sorted(files, key=lambda f: f.name):
                if file.name.endswith((".dist-info", ".egg-info")):
                    seen.update(f"{folder}/{file.name}/{file.stat().st_mtime_ns}\n".encode())
    return seen.hexdigest()[:32]


def _discover() -> list[Found]:
    from importlib import metadata  # 50 ms; here and not above, since the index mostly knows

    found: dict[str, Found] = {}
    # A source tree's .egg-info may lie on sys.path too: what is installed from it says more.
    installed = sorted(metadata.distributions(), key=lambda d: getattr(d, "_path", Path()).suffix == ".egg-info")
    for distribution in installed:
        if "mezzotint.plugins" in (distribution.read_text("entry_points.txt") or ""):
            for each in _points(distribution):
                found.setdefault(each.key, each)  # the first on sys.path is the one that gets imported
    return sorted(found.values(), key=lambda f: (f.package != "mezzotint", f.package, f.name))


def _points(distribution: Any) -> Iterator[Found]:
    package, version = distribution.metadata["Name"] or "", distribution.version
    folder = getattr(distribution, "_path", None)
    changed = folder.stat().st_mtime_ns if isinstance(folder, Path) else 0
    editable = _is_editable(distribution)
    for point in distribution.entry_points:
        if point.group == "mezzotint.plugins":
            root = _source_root(point.value) if editable else ""
            yield Found(point.name, point.value, package, version, f"{version}|{point.value}|{changed}", root)


def _is_editable(distribution: Any) -> bool:
    if getattr(distribution, "_path", Path()).suffix == ".egg-info":
        return True
    text = distribution.read_text("direct_url.json")
    with contextlib.suppress(ValueError, AttributeError):
        return bool(json.loads(text or "{}").get("dir_info", {}).get("editable"))
    return False


def _source_root(target: str) -> str:
    from importlib.util import find_spec

    with contextlib.suppress(ImportError, ValueError):
        spec = find_spec(target.partition(":")[0].partition(".")[0])
        if spec is not None and spec.submodule_search_locations:
            return str(next(iter(spec.submodule_search_locations)))
        if spec is not None and spec.origin:
            return spec.origin
    return ""


def _sources(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in ("__pycache__", "weights") and not f.startswith("."))
        found += [Path(folder, f) for f in sorted(files) if f.endswith((".py", ".json"))]
    return found


def source_stamp(root: Path) -> str:
    """Changes when a source file under `root` does, as far as sizes and times tell."""
    seen = hashlib.sha256()
    for file in _sources(root):
        with contextlib.suppress(OSError):
            status = file.stat()
            seen.update(f"{file}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return seen.hexdigest()[:32]


def source_digest(root: Path) -> str:
    """sha256 over the Python and JSON files under `root`; weights have fingerprints of their own."""
    seen = hashlib.sha256()
    for file in _sources(root):
        name = file.relative_to(root).as_posix() if root.is_dir() else file.name
        seen.update(f"{name}\0{file.stat().st_size}\0".encode())
        seen.update(file.read_bytes())
    return seen.hexdigest()


def read_preferences() -> dict[str, str]:
    """The table `prefer` (node id to package) of the configuration file, MEZZOTINT_CONFIG or the platform's.

    Raises: UserError: if the file cannot be read, or the table is no table of strings.
    """
    chosen = os.environ.get("MEZZOTINT_CONFIG")
    if chosen:
        path = Path(chosen)
    else:
        from platformdirs import user_config_path

        path = user_config_path("mezzotint") / "config.toml"
        if not path.is_file():
            return {}
    import tomllib

    try:
        prefer = tomllib.loads(path.read_text(encoding="utf-8")).get("prefer", {})
    except (OSError, ValueError) as error:
        raise UserError(f"configuration file {path}: {error}") from error
    if not (isinstance(prefer, dict) and all(isinstance(v, str) for v in prefer.values())):
        raise UserError(f'configuration file {path}: prefer is a table such as {{"image.load" = "acme-nodes"}}')
    return prefer
