"""Tables on a terminal and in a pipe: aligned columns, nothing cut off where a machine may read it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import click

from mezzotint.cli.failures import printable

__all__ = ["ago", "print_columns", "size_words"]


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows under a header. right: columns that are numbers. On a terminal, lines are cut to its width."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    click.secho(_line(header, widths, header, right, room), bold=True)
    for row in rows:
        click.echo(_line(row, widths, header, right, room))


def _line(
    row: Sequence[str], widths: Sequence[int], header: Sequence[str], right: Sequence[str], room: int
) -> str:
    cells = [
        cell.rjust(width) if name in right else cell.ljust(width)
        for cell, width, name in zip(row, widths, header, strict=True)
    ]
    text = "  ".join(cells).rstrip()
    return text[: room - 1] + "…" if room and len(text) > room else text


def size_words(size: float) -> str:
    """Bytes for people: 512 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def ago(seconds: float) -> str:
    """A span of time in its largest unit: 5 s, 3 min, 2 h, 9 d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
