"""`python -m mezzotint_kernels.audit`: compile every case for every architecture and say what came of it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mezzotint_kernels.audit.build import AuditError, check_tools
from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.audit.collect import all_cases, pick_architectures, pick_cases
from mezzotint_kernels.audit.document import rewrite, summary
from mezzotint_kernels.audit.run import Finding, inspect_all


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all is well; 1: a case has a problem; 2: the audit could not be made."""
    options = _parser().parse_args(arguments)
    try:
        archs = pick_architectures(options.arch)
        cases = pick_cases(all_cases(), options.case)
        if options.list:
            print("\n".join(case.name for case in cases))
            return 0
        if options.write and (options.arch or options.case):
            raise AuditError("--write makes the whole document: leave --arch and --case out")
        version = check_tools()
        findings = _inspect(cases, archs, options)
        if options.json:
            rows = [finding.as_json() for finding in findings]
            print(json.dumps({"triton": version, "results": rows}, indent=1))
        elif not options.write:
            print(summary(findings))
        if options.write:
            rewrite(options.write, findings, version)
    except AuditError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("audit: interrupted", file=sys.stderr)
        return 130
    bad = [finding for finding in findings if finding.problems]
    print(f"{len(findings)} compiled, {len(bad)} with problems", file=sys.stderr)
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mezzotint_kernels.audit", description=__doc__)
    parser.add_argument("--arch", action="append", default=[], help="sm80, sm90, sm100, gfx942, …; all four")
    parser.add_argument("--case", action="append", default=[], help="an op, a case or a pattern; all of them")
    parser.add_argument("--list", action="store_true", help="only say which cases there are")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into docs/kernels.md")
    parser.add_argument("--cache", metavar="FOLDER", help="keep what is compiled, half a megabyte a kernel")
    parser.add_argument("--jobs", type=_at_least_one, default=os.cpu_count() or 1, help="processes")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wanted a number of processes, 1 or more; got {text!r}")
    return int(text)


def _inspect(cases: Sequence[Case], archs: Sequence[str], options: argparse.Namespace) -> list[Finding]:
    total = sum(case.tile(arch) is not None for case in cases for arch in archs)
    if not total:
        raise AuditError(f"nothing to compile: the table has no tile for these cases on {', '.join(archs)}")
    began, findings = time.perf_counter(), []
    for finding in inspect_all(cases, archs, options.jobs, options.cache):
        findings.append(finding)
        state = "; ".join(finding.problems) or "ok"
        seconds = f"{finding.figures.seconds:.1f} s" if finding.figures else ""
        print(
            f"[{len(findings)}/{total}] {finding.arch:7s}{finding.case.name}  {seconds}  {state}", file=sys.stderr
        )
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    order = {(case.name, arch): i for i, (case, arch) in enumerate((c, a) for c in cases for a in archs)}
    return sorted(findings, key=lambda finding: order[finding.case.name, finding.arch])


if __name__ == "__main__":
    sys.exit(main())
