"""The cases of all ops, and finding them by name."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib import import_module

from mezzotint_kernels.audit.build import AuditError
from mezzotint_kernels.audit.case import ARCHITECTURES, Case
from mezzotint_kernels.audit.chips import LIMITS

__all__ = ["SUBJECTS", "all_cases", "pick_architectures", "pick_cases"]

SUBJECTS = ("attention", "indexed", "terms", "temporal", "p2p", "step", "norm")
"""`cases_<subject>.py` holds each one's cases."""


def all_cases() -> list[Case]:
    """Every case, in the order of SUBJECTS. Raises: AuditError: two have one name."""
    cases = [case for subject in SUBJECTS for case in _of_subject(subject)]
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise AuditError(f"two cases are named {twice[0]!r}")
    return cases


def pick_cases(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """The cases whose name or op a pattern ("noise_step", "attention: *D40*") fits; all without a pattern.

    Raises: AuditError: a pattern fits none, with the nearest name.
    """
    if not patterns:
        return list(cases)
    picked: dict[str, Case] = {}
    for pattern in patterns:
        found = {case.name: case for case in cases if _fits(case, pattern)}
        if not found:
            known = [*dict.fromkeys(case.op for case in cases), *(case.name for case in cases)]
            raise AuditError(f"no case {pattern!r}{_nearest(pattern, known)}")
        picked |= found
    return [case for case in cases if case.name in picked]


def pick_architectures(names: Sequence[str]) -> list[str]:
    """ "sm90", "sm_90", or several with commas; the tables' four without any.

    Raises: AuditError: one is unknown, with the nearest.
    """
    picked = []
    for name in (part.strip() for given in names for part in given.split(",")):
        arch = name.replace("sm_", "sm").lower()
        if arch not in LIMITS:
            raise AuditError(f"no architecture {name!r}{_nearest(arch, list(LIMITS))}")
        picked.append(arch)
    return list(dict.fromkeys(picked)) or list(ARCHITECTURES)


def _of_subject(subject: str) -> list[Case]:
    found: list[Case] = import_module(f"{__package__}.cases_{subject}").cases()
    return found


def _fits(case: Case, pattern: str) -> bool:
    return pattern in (case.op, case.name) or fnmatchcase(case.name.lower(), pattern.lower())


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known[:12]) or 'none'}"
