import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

_BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. mark: the HTML comment right above it, e.g. `file: invert.py` or `test`."""

    mark: str
    language: str
    text: str

    @property
    def file(self):
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None

    def commands(self):
        """The lines of a console block that someone types."""
        return [shlex.split(line[2:], comments=True) for line in self.text.splitlines() if line.startswith("$ ")]


@pytest.fixture
def blocks():
    """The fenced blocks of a page in docs/."""

    def read(page):
        text = (DOCS / page).read_text(encoding="utf-8")
        return [Block(m["mark"] or "", m["language"], m["text"]) for m in _BLOCK.finditer(text)]

    return read
