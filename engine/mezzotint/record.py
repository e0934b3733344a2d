"""The record of a run: what was run, with what, how long each step took, and what came out."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.errors import UserError, did_you_mean
from mezzotint.literals import FileRef

if TYPE_CHECKING:
    from datetime import datetime

    from mezzotint.execute import Outcome
    from mezzotint.graph import Graph
    from mezzotint.plan import Step
    from mezzotint.runner import RunResult
    from mezzotint.runtime import Runtime

__all__ = ["diff_runs", "list_runs", "read_run", "write_record"]


def write_record(
    folder: Path,
    result: RunResult,
    outcome: Outcome,
    graph: Graph,
    runtime: Runtime,
    started: datetime,
    made_of: str,
) -> Path:
    """Write `folder/<run id>/run.json`. made_of: the graph and its inputs, from `embed`."""
    from mezzotint.atomic import write_bytes

    plan = result.plan
    record = {
        "run": result.run,
        "status": result.status,
        "started": started.isoformat(timespec="milliseconds"),
        "seconds": round(result.seconds, 4),
        "graph": graph.name,
        "file": str(graph.path) if graph.path else graph.file,
        "made_of": json.loads(made_of),
        "inputs": {name: _plain(value) for name, value in plan.inputs.items()},
        "versions": _versions(plan.steps.values(), runtime),
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "device": runtime.settings.resolved_device,
            "dtype": runtime.settings.dtype,
        },
        "sources": _sources(plan.steps.values(), runtime),
        "steps": [_step(step, outcome) for step in plan.steps.values()],
        "failures": {name: str(error) for name, error in result.failures.items()},
        "peak_memory_bytes": _peak_memory(),
        "outputs": [
            {"output": f.output, "path": str(f.path), "sha256": f.sha256, "bytes": f.bytes} for f in result.files
        ],
    }
    path = folder / result.run / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, _lines(record).encode())
    return path


def _lines(record: Mapping[str, Any]) -> str:
    """JSON with a line for each key and each step: `indent` would take a second for 10,000 of them."""
    parts = []
    for key, value in record.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, FileRef):
        return value.text
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


def _step(step: Step, outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {"node": step.name, "use": step.use, "key": step.key}
    if step.key in outcome.seconds:
        row |= {"seconds": round(outcome.seconds[step.key], 4), "bytes": outcome.sizes.get(step.key, 0)}
    elif step.name in outcome.failures:
        row["failed"] = True
    elif step.name in outcome.skipped:
        row["skipped"] = True
    else:
        row["cached"] = True
    return row


def _versions(steps: Any, runtime: Runtime) -> dict[str, str]:
    from mezzotint import __version__
    from mezzotint.settings import _torch_version

    found = {"mezzotint": __version__, "torch": _torch_version()}
    for id in dict.fromkeys(step.use.partition("@")[0] for step in steps):
        given = runtime.registry.provenance(id)
        found[given.package] = given.version
    return found


def _sources(steps: Any, runtime: Runtime) -> dict[str, str]:
    """Models and files that the steps read, with their digests."""
    found = {}
    for step in steps:
        for ref in _files(dict(step.inputs)):
            found[ref.text] = runtime.digest(ref.path)
    return found


def _files(tree: Any) -> Iterator[FileRef]:
    if isinstance(tree, FileRef):
        yield tree
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from _files(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from _files(part)


def _peak_memory() -> int:
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """All records in a folder, oldest first; damaged ones are left out."""
    found = []
    for path in sorted(folder.glob("*/run.json")):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
    return [r for r in found if isinstance(r, dict) and "run" in r]


def read_run(folder: Path, run: str) -> dict[str, Any]:
    """One record, by its id or the beginning of it; "last" is the newest.

    Raises: UserError: if there is none, or several that begin so.
    """
    known = sorted(p.parent.name for p in folder.glob("*/run.json"))
    hits = known[-1:] if run == "last" else [k for k in known if k.startswith(run)]
    if len(hits) != 1:
        near = did_you_mean(run, known)
        why = f"{len(hits)} runs begin with {run!r}" if hits else f"there is no run {run!r} in {folder}"
        raise UserError(why + (f"; did you mean {near!r}?" if near else ""))
    try:
        record: dict[str, Any] = json.loads((folder / hits[0] / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"the record of run {hits[0]} cannot be read: {error}") from error
    return record


def diff_runs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where two records differ in what matters: inputs, versions, machine, sources, steps, outputs."""
    rows: list[tuple[str, Any, Any]] = []
    for part in ("graph", "inputs", "versions", "machine", "sources"):
        rows += _diff(part, a.get(part), b.get(part))
    keys_a, keys_b = ({s["node"]: s["key"][:12] for s in r.get("steps", [])} for r in (a, b))
    rows += _diff("steps", keys_a, keys_b)
    files_a, files_b = ({o["output"]: o["sha256"][:12] for o in r.get("outputs", [])} for r in (a, b))
    return rows + _diff("outputs", files_a, files_b)


def _diff(name: str, a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [row for key in {**a, **b} for row in _diff(f"{name}.{key}", a.get(key), b.get(key))]
    return [] if a == b else [(name, a, b)]
