"""Inspect many cases, in as many processes as are asked for; Triton's cache is then removed."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from mezzotint_kernels.audit.bounds import best_case
from mezzotint_kernels.audit.build import AuditError
from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.audit.collect import all_cases
from mezzotint_kernels.audit.elf import UnreadableError
from mezzotint_kernels.audit.figures import Figures, inspect_case, problems

__all__ = ["Finding", "inspect_all", "look_at", "own_cache"]


@dataclass(frozen=True)
class Finding:
    """One case on one architecture. figures: None if there are none, and `problems` says why."""

    case: Case
    arch: str
    figures: Figures | None
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        case, tile = self.case, self.case.tile(self.arch)
        bound = best_case(case, self.arch, self.figures) if self.figures else None
        assert tile is not None
        return {
            "op": case.op,
            "case": case.label,
            "arch": self.arch,
            "tile": asdict(tile),
            "programs": case.grid(tile),
            "figures": asdict(self.figures) if self.figures else None,
            "fewest_bytes": case.fewest_bytes,
            "moved_bytes": case.moved_bytes(tile) if case.moved_bytes else case.fewest_bytes,
            "eager_bytes": case.eager_bytes,
            "at_least_seconds": asdict(bound) if bound else None,
            "problems": self.problems,
        }


@contextmanager
def own_cache(kept: str | None = None) -> Iterator[None]:
    """Triton's cache in `kept`, or in a folder that goes away; no line numbers: paths would change the bytes."""
    with tempfile.TemporaryDirectory(prefix="mezzotint-audit-") as folder:
        wanted = {"TRITON_DISABLE_LINE_INFO": "1", "TRITON_CACHE_DIR": kept or folder}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def look_at(case: Case, arch: str, cache: str | None = None) -> Finding:
    """Inspect one case here. What goes wrong with it is in the finding.

    cache: a folder for Triton's cache that stays, so that a second look is quick.
    """
    with own_cache(cache):
        try:
            figures = inspect_case(case, arch)
        except (AuditError, UnreadableError) as error:
            return Finding(case, arch, None, [str(error)])
    return Finding(case, arch, figures, problems(case, arch, figures))


def inspect_all(
    cases: Sequence[Case], archs: Sequence[str], jobs: int, cache: str | None = None
) -> Iterator[Finding]:
    """Findings as they come, for each case and architecture that has a tile."""
    pairs = [(case, arch) for case in cases for arch in archs if case.tile(arch) is not None]
    if jobs <= 1 or len(pairs) == 1:
        yield from (look_at(case, arch, cache) for case, arch in pairs)
        return
    by_name = {case.name: case for case in cases}
    # Spawned: a fork of a process with LLVM's and torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(pairs)), mp_context=context) as pool:
        waiting = [pool.submit(_by_name, case.name, arch, cache) for case, arch in pairs]
        try:
            for done in as_completed(waiting):
                name, arch, figures, found = done.result()
                yield Finding(by_name[name], arch, figures, found)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _by_name(name: str, arch: str, cache: str | None) -> tuple[str, str, Figures | None, list[str]]:
    """In a worker, which cannot be sent a case: it holds functions."""
    (case,) = (case for case in all_cases() if case.name == name)
    found = look_at(case, arch, cache)
    return name, arch, found.figures, found.problems
