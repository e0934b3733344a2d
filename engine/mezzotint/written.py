"""Values of a graph's inputs as people write them: on a command line, in a table's cell, after a sweep's `=`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mezzotint.literals import check_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mezzotint.document import InputDoc
    from mezzotint.errors import Problem

__all__ = ["check_written", "described", "value_range", "value_words", "written_list", "written_value"]

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def written_value(doc: InputDoc, text: str) -> Any:
    """The JSON value that a text stands for, by the input's declared type. Ranges are checked elsewhere.

    Raises: ValueError: saying what was wanted.
    """
    if doc.type == "string":
        return text
    if text.strip() == "null" and not doc.required and doc.default is None:
        return None
    if doc.type == "integer":
        return _integer(text)
    if doc.type == "number":
        return _number(text)
    if doc.type == "boolean":
        return _boolean(text)
    value = _json(text)
    if doc.type == "object" and not isinstance(value, dict):
        raise ValueError('wanted a JSON object, e.g. {"a": 1}')
    return value


def written_list(doc: InputDoc, texts: Sequence[str]) -> Any:
    """An array from one text of JSON, or from one text for each item.

    Raises: ValueError: saying what was wanted.
    """
    if len(texts) == 1 and texts[0].lstrip().startswith("["):
        return _json(texts[0])
    if len(texts) == 1 and texts[0].strip() == "null":
        return written_value(doc, texts[0])
    return [written_value(doc.items, text) if doc.items else _loose(text) for text in texts]


def _integer(text: str) -> int:
    if not re.fullmatch(r"\s*[+-]?\d{1,4000}\s*", text):
        raise ValueError("wanted an integer")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("wanted a number") from None


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise ValueError("wanted true or false")
    return word in _TRUE


def _json(text: str) -> Any:
    from mezzotint.document import parse_json
    from mezzotint.errors import GraphError

    try:
        return parse_json(text)
    except GraphError as error:
        raise ValueError(f"wanted JSON: {error.problems[0].message}") from None


def _loose(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_written(doc: InputDoc, value: Any, where: str) -> list[str]:
    """What is wrong with an input's value, each line beginning with the place where it was written."""
    problems: list[Problem] = []
    check_input(doc, value, where, problems)
    return [f"{p.pointer}: {described(p)}" for p in problems]


def described(problem: Problem) -> str:
    """A problem in words, without its place."""
    return str(replace(problem, file="", pointer="")).removeprefix("#: ")


def value_words(doc: InputDoc) -> str:
    """An input's type for a help text: `INTEGER`, `a|b|c`, `FILE`, ..."""
    if doc.enum:
        return "|".join(str(word) for word in doc.enum)
    if doc.is_file:
        return "FOLDER|FILE" if doc.format == "path" else f"{(doc.format or '').upper()} FILE"
    words = {"string": "TEXT", "array": "LIST", "object": "JSON"}
    return words.get(doc.type, doc.type.upper())


def value_range(doc: InputDoc) -> str:
    """An input's range in words, or nothing."""
    from mezzotint.node_docs import schema_range

    schema = doc.model_dump(by_alias=True, exclude_none=True, exclude={"enum", "default"})
    return schema_range(schema)
