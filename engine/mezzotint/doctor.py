"""Whether the installation is sound: one check per part, each with what is wrong and what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mezzotint.errors import MezzotintError

__all__ = ["Finding", "examine"]

State = Literal["ok", "warn", "fail"]

_NEEDED = ("torch", "diffusers", "transformers", "safetensors", "PIL", "av")
_LOW_DISK = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """One line of `mezzotint doctor`."""

    what: str
    state: State
    message: str


def examine() -> list[Finding]:
    """All checks; imports torch. A check that breaks is a finding, not an error."""
    found: list[Finding] = []
    for what, check in _CHECKS.items():
        try:
            found += check()
        except Exception as error:  # whatever it is, the other checks still say something
            found.append(Finding(what, "fail", f"{type(error).__name__}: {error}"))
    return found


def _mezzotint() -> Iterator[Finding]:
    from mezzotint import __version__

    state: State = "ok" if sys.version_info >= (3, 11) else "fail"
    yield Finding("mezzotint", state, f"{__version__}, Python {platform.python_version()}, {platform.system()}")


def _packages() -> Iterator[Finding]:
    from importlib.util import find_spec

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        yield Finding("packages", "fail", f"not installed: {', '.join(missing)}; install mezzotint again")
    else:
        yield Finding("packages", "ok", f"{', '.join(_NEEDED)} are there")


def _torch() -> Iterator[Finding]:
    import torch

    parts = tuple(int(p) for p in torch.__version__.split("+")[0].split(".")[:2] if p.isdigit())
    state: State = "ok" if parts >= (2, 9) else "fail"
    yield Finding("torch", state, f"{torch.__version__}" + ("" if state == "ok" else "; 2.9 or newer is wanted"))


def _device() -> Iterator[Finding]:
    import torch

    from mezzotint.settings import detect_device

    wanted = detect_device()
    kind = wanted.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        advice = "MEZZOTINT_DEVICE=cpu runs on the processor; else look at the driver and at torch's build"
        yield Finding("device", "fail", f"a GPU is there, but torch cannot use it; {advice}")
    elif kind == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        yield Finding("device", "ok", f"{wanted}: {torch.cuda.get_device_name(0)}, {memory:.0f} GB")
    else:
        yield Finding(
            "device", "ok", f"{wanted}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
        )


def _triton() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    from mezzotint.settings import detect_device

    on_gpu = detect_device().startswith("cuda")
    if find_spec("triton") is None:
        message = "not installed; the plain torch kernels are used"
        yield Finding("triton", "warn" if on_gpu else "ok", message)
        return
    try:
        found = version("triton")
    except PackageNotFoundError:
        found = "of unknown version"
    yield Finding("triton", "ok", found if on_gpu else f"{found}; not used without a GPU")


def _plugins() -> Iterator[Finding]:
    from mezzotint.plugins import load_registry, plugins_table

    rows = plugins_table(load_registry(namespaces=()))
    for row in rows:
        if row.state != "ok":
            advice = "`mezzotint plugins --debug` shows where"
            yield Finding(
                "plugins", "fail" if row.package == "mezzotint" else "warn", f"{row.name}: {row.error}; {advice}"
            )
    sound = [row for row in rows if row.state == "ok"]
    nodes = sum(len(row.nodes) for row in sound)
    yield Finding("plugins", "ok" if sound else "fail", f"{len(sound)} plugins with {nodes} nodes")


def _cache() -> Iterator[Finding]:
    from mezzotint.store import Store

    try:
        store = Store.open_default()
    except MezzotintError as error:
        yield Finding("cache", "fail", str(error))
        return
    try:
        stats = store.stats()
        used = f"{stats.entries} entries, {stats.bytes / 1e9:.2f} of {stats.limit / 1e9:.0f} GB"
        yield Finding("cache", "ok", f"{store.folder}: {used}")
        free = shutil.disk_usage(store.folder).free
        if free < _LOW_DISK:
            yield Finding("disk", "warn", f"only {free / 1e9:.1f} GB free under {store.folder}")
    finally:
        store.close()


def _weights() -> Iterator[Finding]:
    from mezzotint.plugins import load_registry

    registry = load_registry(namespaces=())
    path = registry.resolve_source("bundled:smallworld")
    if path is None or not path.exists():
        yield Finding("weights", "fail", "bundled:smallworld is not there; install mezzotint again")
        return
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    if not files:
        yield Finding("weights", "fail", f"bundled:smallworld has no weights in {path}")
        return
    # A checkout without Git LFS holds small text files in place of the weights.
    empty = [f for f in files if f.stat().st_size < 1024]
    size = sum(f.stat().st_size for f in files) / 1e6
    message = f"bundled:smallworld: {len(files)} files, {size:.1f} MB"
    yield Finding(
        "weights", "fail" if empty else "ok", message + (f"; {empty[0].name} is cut short" if empty else "")
    )


def _graphs() -> Iterator[Finding]:
    from mezzotint.paths import _graph_roots

    roots = _graph_roots()
    count = len({p.relative_to(root) for root in roots for p in Path(root).rglob("*.json")})
    state: State = "ok" if count else "fail"
    yield Finding(
        "graphs", state, f"{count} files as bundled:graphs/…" if count else "the bundled graphs are not there"
    )


_CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "mezzotint": _mezzotint,
    "packages": _packages,
    "torch": _torch,
    "device": _device,
    "triton": _triton,
    "plugins": _plugins,
    "cache": _cache,
    "weights": _weights,
    "graphs": _graphs,
}
