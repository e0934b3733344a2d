"""How a chat looks on a terminal: a line to write on, answers, and the picture in coloured half blocks."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["answer", "ask", "show"]

COLUMNS = 40


def ask() -> str | None:
    """What is typed, or None at the end of input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives `input` its history and keys)
    sys.stderr.flush()
    try:
        return input("> ")
    except EOFError:
        print(file=sys.stderr)
        return None


def answer(text: str) -> None:
    """What the interpreter has to say."""
    from rich.text import Text

    from mezzotint.cli.failures import printable

    _console().print(Text(printable(text), style="cyan"))


def show(paths: list[Path]) -> None:
    """The first picture among some files."""
    found = next((path for path in paths if path.suffix == ".png"), None)
    if found is not None and sys.stderr.isatty():
        _console().print(blocks(found))


def blocks(path: Path) -> Any:
    """A picture as half blocks, two of its rows in one line, as wide as fits."""
    from PIL import Image
    from rich.text import Text

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    width = min(COLUMNS, picture.width)
    small = picture.resize((width, max(2, round(picture.height * width / picture.width) // 2 * 2)))
    text = Text()
    for row in range(0, small.height, 2):
        for column in range(width):
            upper, lower = (small.getpixel((column, row + below)) for below in (0, 1))
            text.append("▀", style=f"#{bytes(upper).hex()} on #{bytes(lower).hex()}")  # type: ignore[arg-type]
        text.append("\n")
    return text


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True, highlight=False)
