"""Batches: one graph run many times, over the rows of files and the values of sweeps.

What the runs have in common is done once, and what an interrupted batch finished is not done again: both follow
from content keys, so a batch keeps no state of its own.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.errors import UserError, did_you_mean
from mezzotint.written import check_written, written_list, written_value

if TYPE_CHECKING:
    from mezzotint.document import GraphDoc, InputDoc

__all__ = ["MAX_ITEMS", "Item", "make_items", "read_rows", "read_sweep", "slug"]

MAX_ITEMS = 100_000
MAX_BYTES = 64 * 2**20
MAX_SHOWN = 20

_RANGE = re.compile(r"^\s*([+-]?\d{1,18})\s*\.\.\s*([+-]?\d{1,18})\s*(?:\.\.\s*(\d{1,18})\s*)?$")


@dataclass(frozen=True)
class Item:
    """One run of a batch. inputs: all that the graph is given. varied: those that differ between the runs."""

    inputs: Mapping[str, Any]
    varied: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The run in words, for people."""
        return ", ".join(f"{name}={_shown(value, 60)}" for name, value in self.varied.items())

    def stem(self, beginning: str) -> str:
        """How the names of its files begin: with what makes it differ from the others."""
        parts = [f"{name}-{slug(_shown(value, 200))}" for name, value in self.varied.items()]
        return slug("-".join([beginning, *parts]), 120)


def make_items(
    doc: GraphDoc, inputs: Mapping[str, Any], *, each: Sequence[str] = (), sweeps: Sequence[str] = ()
) -> list[Item]:
    """The runs of a batch: the rows of every `[INPUT=]FILE` times the values of every `INPUT=VALUES`.

    Raises: UserError: all that is wrong, each with the flag, or the file, line and column.
    """
    wrong: list[str] = []
    axes: list[list[dict[str, Any]]] = [read_rows(doc, text, wrong) for text in each]
    axes += [read_sweep(doc, text, wrong) for text in sweeps]
    wrong += _twice(axes, inputs)
    if wrong:
        more = [f"and {len(wrong) - MAX_SHOWN} more"] if len(wrong) > MAX_SHOWN else []
        raise UserError("\n".join(wrong[:MAX_SHOWN] + more))
    count = math.prod(len(axis) for axis in axes)
    if count > MAX_ITEMS:
        raise UserError(f"the batch has {count:,} runs; at most {MAX_ITEMS:,} are possible at once")
    if not count:
        raise UserError("the batch has no runs: its file is empty")
    return [_item(inputs, rows) for rows in itertools.product(*axes)]


def _item(inputs: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Item:
    varied = {name: value for row in rows for name, value in row.items()}
    return Item({**inputs, **varied}, varied)


def _twice(axes: Sequence[Sequence[Mapping[str, Any]]], inputs: Mapping[str, Any]) -> list[str]:
    """Inputs that more than one place wants to say."""
    seen = {name: "its flag" for name in inputs}
    messages = []
    for axis in axes:
        for name in dict.fromkeys(name for row in axis for name in row):
            if name in seen:
                messages.append(f"the input {name!r} is given twice: in a batch and by {seen[name]}")
            seen[name] = "another batch"
    return messages


def read_sweep(doc: GraphDoc, text: str, wrong: list[str]) -> list[dict[str, Any]]:
    """`seed=0..99`, `seed=0..90..10`, `steps=10,20,40` or `prompt=["a, b", "c"]`."""
    name, equals, values = text.partition("=")
    where = f"--sweep {name}"
    declared = doc.inputs.get(name)
    if not equals or declared is None:
        wrong.append(f"{where}: {_unknown(doc, name)}" if equals else f"--sweep {text}: wanted INPUT=VALUES")
        return []
    try:
        found = _swept(declared, values)
    except ValueError as error:
        wrong.append(f"{where}: {error}, got {values[:80]!r}")
        return []
    bad = [messages for value in found if (messages := check_written(declared, value, where))]
    if len(bad) == 1:
        wrong += bad[0]
    elif bad:
        first = bad[0][0].removeprefix(f"{where}: ")
        wrong.append(f"{where}: {len(bad):,} of {len(found):,} values are out of range; the first: {first}")
    return [{name: value} for value in found]


def _swept(doc: InputDoc, text: str) -> list[Any]:
    span = _RANGE.match(text)
    if span is not None and doc.type in ("integer", "number"):
        first, last, step = int(span[1]), int(span[2]), int(span[3] or 1)
        if step < 1 or last < first:
            raise ValueError("wanted FIRST..LAST, or FIRST..LAST..STEP, going up")
        if (last - first) // step >= MAX_ITEMS:
            raise ValueError(f"more than {MAX_ITEMS:,} values")
        return list(range(first, last + 1, step))
    if text.lstrip().startswith("["):
        values = written_list(doc, [text])
        return values if isinstance(values, list) else []
    if doc.type in ("array", "object"):
        raise ValueError("wanted a JSON list of the values")
    return [written_value(doc, word.strip()) for word in text.split(",")]


def read_rows(doc: GraphDoc, text: str, wrong: list[str]) -> list[dict[str, Any]]:
    """The rows of `FILE` or `INPUT=FILE`: a line each, or a column (.csv) or key (.jsonl) per input."""
    name, path = _split(doc, text)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"--each {path}: larger than {MAX_BYTES:,} bytes")
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"--each: cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--each {path}: not UTF-8 text: byte {error.start}") from error
    suffix = path.suffix.lower()
    if suffix in (".csv", ".jsonl") and not name:
        rows = _table(content, str(path), wrong) if suffix == ".csv" else _lines_of_json(content, str(path), wrong)
        return list(_checked(doc, rows, wrong))
    name = name or _text_input(doc, path)
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            found.append((f"{path} line {number}", {name: line.strip()}))
    return list(_checked(doc, found, wrong))


def _split(doc: GraphDoc, text: str) -> tuple[str, Path]:
    name, equals, rest = text.partition("=")
    if equals and name in doc.inputs:
        return name, Path(rest)
    if equals and not Path(text).exists() and re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"--each {name}: {_unknown(doc, name)}")
    return "", Path(text)


def _text_input(doc: GraphDoc, path: Path) -> str:
    """The input that lines of text are meant for: the first string."""
    for name, declared in doc.inputs.items():
        if declared.type == "string" and not declared.is_file and not declared.enum:
            return name
    raise UserError(f"--each {path}: the graph has no input for text; write INPUT={path}")


_Rows = list[tuple[str, dict[str, Any]]]


def _table(content: str, file: str, wrong: list[str]) -> _Rows:
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    rows: _Rows = []
    try:
        for row in reader:
            where = f"{file} line {reader.line_num}"
            if None in row or None in row.values():
                wrong.append(f"{where}: {len(reader.fieldnames or ())} columns are wanted")
            else:
                # An empty cell leaves the input at its default.
                rows.append((where, {k.strip(): v for k, v in row.items() if v != ""}))
    except csv.Error as error:
        wrong.append(f"{file} line {reader.line_num}: not valid CSV: {error}")
    return rows


def _lines_of_json(content: str, file: str, wrong: list[str]) -> _Rows:
    from mezzotint.document import parse_json
    from mezzotint.errors import GraphError

    rows: _Rows = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file} line {number}"
        try:
            row = parse_json(line)
        except GraphError as error:
            wrong.append(f"{where}: {error.problems[0].message}")
            continue
        if isinstance(row, dict):
            rows.append((where, row))
        else:
            wrong.append(f"{where}: wanted a JSON object with a key per input")
    return rows


def _checked(doc: GraphDoc, rows: _Rows, wrong: list[str]) -> Iterator[dict[str, Any]]:
    """The rows as JSON values in range; text is read by the input's type."""
    for where, row in rows:
        found = {}
        for name, value in row.items():
            declared = doc.inputs.get(name)
            if declared is None:
                wrong.append(f"{where}, {name}: {_unknown(doc, name)}")
                continue
            try:
                found[name] = _from_text(declared, value) if isinstance(value, str) else value
            except ValueError as error:
                wrong.append(f"{where}, {name}: {error}, got {value[:80]!r}")
                continue
            wrong += check_written(declared, found[name], f"{where}, {name}")
        yield found


def _from_text(doc: InputDoc, text: str) -> Any:
    return written_list(doc, [text]) if doc.type == "array" else written_value(doc, text)


def _unknown(doc: GraphDoc, name: str) -> str:
    near = did_you_mean(name, doc.inputs)
    hint = f"did you mean {near!r}?" if near else f"it has {', '.join(doc.inputs) or 'none'}"
    return f"the graph has no such input; {hint}"


def _shown(value: Any, limit: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def slug(text: str, limit: int = 48) -> str:
    """Text as a part of a file's name that every system takes: letters, digits, `.`, `_` and `-`."""
    word = re.sub(r"[^\w.]+", "-", text).strip("-.")
    return word[:limit].rstrip("-.") or "x"
