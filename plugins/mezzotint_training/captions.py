"""Captions of a folder of pictures: text files beside them, or one table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mezzotint import UserError

__all__ = ["TABLES", "read_captions"]

# The names that the image folders of Hugging Face's data sets have, and the plain one.
TABLES = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv")
FILE_COLUMNS = ("file_name", "file", "image")
TEXT_COLUMNS = ("caption", "text")


def read_captions(folder: Path, names: Sequence[str]) -> list[str]:
    """The caption of each picture; empty ones, if the folder has none at all.

    names: of the pictures, relative to the folder.

    Raises: UserError: some pictures have a caption and others lack one; two tables; a table that is damaged or
    names a file that is not there.
    """
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        raise UserError(f"{folder.name}: two tables of captions, {tables[0].name} and {tables[1].name}; keep one")
    if tables:
        found, where = _table(tables[0]), f"in {tables[0].name}"
        strangers = sorted(found.keys() - set(names))
        if strangers:
            raise UserError(f"{tables[0].name} names {strangers[0]!r}, which is no picture in {folder.name}")
    else:
        found, where = _beside(folder, names), "in a .txt of its name"
        if not found:
            return [""] * len(names)
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(
            f"{folder.name}: {len(names)} pictures, {len(found)} captions: {missing[0]!r} has none {where}"
        )
    return [found[name] for name in names]


def _beside(folder: Path, names: Sequence[str]) -> dict[str, str]:
    files = {name: (folder / name).with_suffix(".txt") for name in names}
    return {name: _text(file).strip() for name, file in files.items() if file.is_file()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file.name}: cannot be read as UTF-8 text: {error}") from error


def _table(file: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, row in _rows(file):
        values = [next((row[key] for key in keys if key in row), None) for keys in (FILE_COLUMNS, TEXT_COLUMNS)]
        name, text = values
        if not isinstance(name, str) or not isinstance(text, str):
            raise UserError(
                f"{file.name}, line {number}: wanted file_name and caption, got {', '.join(map(str, row))}"
            )
        if name in found:
            raise UserError(f"{file.name}, line {number}: {name!r} has a caption already")
        found[name] = text.strip()
    return found


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    lines = _text(file).splitlines()
    if file.suffix == ".csv":
        reader = csv.DictReader(lines)
        for row in reader:
            yield reader.line_num, {str(key): value for key, value in row.items()}
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{file.name}, line {number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{file.name}, line {number}: wanted an object, got {line[:40]!r}")
        yield number, row
