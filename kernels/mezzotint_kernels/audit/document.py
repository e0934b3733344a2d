"""The audit's tables: for the terminal, and for docs/kernels.md, whose prose is written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mezzotint_kernels.audit.bounds import best_case
from mezzotint_kernels.audit.build import AuditError
from mezzotint_kernels.audit.chips import CHIPS
from mezzotint_kernels.audit.run import Finding

__all__ = ["BEGIN", "END", "rewrite", "summary", "tables"]

BEGIN = "<!-- From here to the end mark: written by `make kernels`. -->"
END = "<!-- The end of what `make kernels` writes. -->"

MB = 1e6


def rewrite(path: Path, findings: Sequence[Finding], version: str) -> None:
    """Put the tables between the marks of a document; what is around them stays.

    Raises: AuditError: the document cannot be read, or has not both marks.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}; the tables go between two marks of a document") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise AuditError(f"{path} has no line {(BEGIN if not begin else END)!r} to write between")
    path.write_text(f"{before}{BEGIN}\n\n{tables(findings, version)}\n\n{END}{after}", encoding="utf-8")


def tables(findings: Sequence[Finding], version: str) -> str:
    """For each op: what was compiled, then bytes and bounds, as Markdown."""
    parts = [f"Made with Triton {version}. {len(findings)} kernels compiled, {_bad(findings)} with problems."]
    for op in dict.fromkeys(finding.case.op for finding in findings):
        mine = [finding for finding in findings if finding.case.op == op]
        shown = [finding for finding in mine if finding.case.shown]
        parts += [f"### {op}", _table(_COMPILED, map(_compiled, shown)), _table(_BYTES, _bytes(shown))]
        if rest := [finding for finding in mine if not finding.case.shown]:
            most = max(finding.figures.registers for finding in rest if finding.figures)
            names = len({finding.case.name for finding in rest})
            parts.append(
                f"Compiled and checked too: {names} more shapes (odd sizes, masks, float32), {len(rest)} kernels, "
                f"{_bad(rest)} with problems, at most {most} registers."
            )
    return "\n\n".join(parts)


def summary(findings: Iterable[Finding]) -> str:
    """One line for each finding, for the terminal."""
    rows = []
    for finding in findings:
        mark = "FAIL" if finding.problems else "ok  "
        cells = "  ".join(c for c in _compiled(finding)[1:] if c) if finding.figures else ""
        rows.append(" ".join(filter(None, [mark, finding.case.name, "|", cells, "; ".join(finding.problems)])))
    return "\n".join(rows)


_COMPILED = (
    "shape",
    "chip",
    "tile",
    "registers",
    "spilled",
    "shared KiB",
    "blocks",
    "occupancy",
    "matrix",
    "loads",
    "stores",
    "loop",
)
_BYTES = ("shape", "fewest MB", "asked of L2", "separate ops", *(f"{chip.name}, µs" for chip in CHIPS.values()))


def _bad(findings: Iterable[Finding]) -> str:
    bad = sum(bool(finding.problems) for finding in findings)
    return str(bad) if bad else "none"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _compiled(finding: Finding) -> list[str]:
    figures, tile = finding.figures, finding.case.tile(finding.arch)
    assert tile is not None
    size = f"{tile.rows}x{tile.columns}" if tile.columns else str(tile.rows)
    named = [finding.case.label, finding.arch, f"{size} w{tile.warps} s{tile.stages}"]
    if figures is None:
        return [*named, *["-"] * (len(_COMPILED) - len(named))]
    counts = figures.mix
    registers = f"{figures.registers} ({figures.accumulators} acc)" if figures.accumulators else figures.registers
    return [
        *named,
        str(registers),
        str(figures.spills or counts.spills),
        f"{figures.shared / 1024:.3g}",
        str(figures.resident),
        f"{figures.occupancy:.2f}",
        " ".join(f"{n} {name}" for name, n in counts.matrix.items()) or "none",
        _widths({"": counts.loads, "async ": counts.copies}),
        _widths({"": counts.stores}),
        str(counts.loop or "-"),
    ]


def _widths(kinds: dict[str, dict[int, int]]) -> str:
    """ "6x16 B, async 8x16 B": how many instructions of how many bytes a thread."""
    cells = [f"{mark}{n}x{bits // 8} B" for mark, widths in kinds.items() for bits, n in widths.items()]
    return ", ".join(cells) or "none"


def _bytes(findings: Sequence[Finding]) -> Iterator[list[str]]:
    """A row for each case; L2's bytes are those of the first chip that has a tile, sm80 as a rule."""
    for case in dict.fromkeys(finding.case for finding in findings):
        mine = {finding.arch: finding for finding in findings if finding.case is case}
        tile = case.tile(next(iter(mine)))
        assert tile is not None
        moved = case.moved_bytes(tile) if case.moved_bytes else case.fewest_bytes
        yield [
            case.label,
            _amount(case.fewest_bytes / MB),
            f"{moved / case.fewest_bytes:.2f}x",
            f"{case.eager_bytes / case.fewest_bytes:.1f}x" if case.eager_bytes else "-",
            *(_bound(mine.get(arch)) for arch in CHIPS),
        ]


def _bound(finding: Finding | None) -> str:
    if finding is None or finding.figures is None:
        return "-"
    bound = best_case(finding.case, finding.arch, finding.figures)
    return f"≥ {_amount(bound.seconds * 1e6)} {bound.by}" if bound else "-"


def _amount(value: float) -> str:
    """Three figures, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
