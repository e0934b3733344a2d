"""The graph file: what is refused, where the message points, and that what is read can be written back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mezzotint.document import (
    MAX_BYTES,
    MAX_DEPTH,
    Ref,
    escape_pointer,
    parse_doc,
    parse_json,
    parse_value,
    read_graph,
    refs_in,
)
from mezzotint.errors import GraphError, UserError

SMALL: dict[str, Any] = {"format": 1, "nodes": {}}


def problems(data: Any) -> list[tuple[str, str]]:
    """The pointers and messages of what is wrong with a document."""
    with pytest.raises(GraphError) as caught:
        parse_doc(data, "g.json")
    return [(p.pointer, p.message) for p in caught.value.problems]


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 column 1"),
        ('{"format": 1, "nodes": {', "line 1 column 25"),
        ('{"format": 1,\n "nodes": }', "line 2 column 11"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice in one object"),
        ("[" * 10_000, "nested too deeply"),
        ('{"a":' * 10_000, "nested too deeply"),
        ("[NaN]", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[1e999]", "the number 1e999 is too large"),
        ("[" + "1" * 5000 + "]", "an integer has too many digits"),
        ('["\\ud800"]', "half of a surrogate pair"),
        (b'\xff\xfe{"', "not UTF-8 text: byte 0"),
        (b'{"name": "caf\xe9"}', "not UTF-8 text: byte 13"),
        (" " * (MAX_BYTES + 1), "67,108,865 bytes; a graph file has at most 67,108,864"),
    ],
    ids=lambda v: None if isinstance(v, bytes) else str(v)[:20],
)
def test_text_that_is_no_sound_json_gets_one_clear_message(text: str | bytes, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        parse_json(text, "g.json")
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.file == "g.json"


@pytest.mark.parametrize("text", [b'\xef\xbb\xbf{"a": 1}', '{"a": 1}', b'{"a": 1}'])
def test_a_byte_order_mark_is_no_matter(text: str | bytes) -> None:
    assert parse_json(text) == {"a": 1}


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse_json('["\\ud83d\\ude00"]') == ["😀"]


def test_integers_keep_all_their_digits() -> None:
    doc = parse_doc({**SMALL, "inputs": {"seed": {"type": "integer", "default": 10**400, "maximum": 2**63 - 1}}})
    assert doc.inputs["seed"].default == 10**400
    assert doc.inputs["seed"].maximum == 2**63 - 1


@pytest.mark.parametrize("place", ["ui", "literal", "default"])
def test_depth_is_bounded_wherever_a_value_may_stand(place: str) -> None:
    def doc(depth: int) -> dict[str, Any]:
        value = nested(depth)
        if place == "ui":
            return {**SMALL, "ui": value}
        if place == "literal":
            return {**SMALL, "nodes": {"a": {"use": "x", "inputs": {"v": {"literal": value}}}}}
        return {**SMALL, "inputs": {"a": {"type": "array", "default": value}}}

    parse_doc(doc(MAX_DEPTH - 6)).to_json()
    for depth in (MAX_DEPTH + 1, 900):
        ((pointer, message),) = problems(doc(depth))
        assert pointer.startswith({"ui": "/ui", "literal": "/nodes/a", "default": "/inputs/a/default"}[place])
        assert message == f"nested deeper than {MAX_DEPTH} levels"


@pytest.mark.parametrize("data", [[], "graph", 1, None, True])
def test_a_graph_is_an_object(data: Any) -> None:
    ((pointer, message),) = problems(data)
    assert pointer == ""
    assert message.startswith("a graph is a JSON object, got ")


def test_all_syntax_problems_come_at_once_each_with_its_place() -> None:
    found = problems(
        {
            "format": 2,
            "nods": {},
            "nodes": {"a": {"use": 5}, "Bad": {"use": "x"}, "c": {"use": "x", "input": {}}, "d": {}},
            "inputs": {"p": {"type": "integer", "minimun": 0, "maximum": "ten"}},
            "outputs": {"o": {"ref": "a", "reff": 1}, "q": 3},
        }
    )
    assert {pointer for pointer, _ in found} == {
        "/format", "/nods", "/nodes/a/use", "/nodes/Bad", "/nodes/c/input", "/nodes/d/use",
        "/inputs/p/minimun", "/inputs/p/maximum", "/outputs/o/reff", "/outputs/q",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "suggestion"),
    [
        ({**SMALL, "output": {}}, "outputs"),
        ({**SMALL, "schema": ""}, "$schema"),
        ({"format": 1, "nodes": {"a": {"use": "x", "input": {}}}}, "inputs"),
        ({**SMALL, "inputs": {"a": {"type": "integer", "exclusiveminimum": 0}}}, "exclusiveMinimum"),
        ({**SMALL, "outputs": {"o": {"ref": "a", "rf": 1}}}, "ref"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(data: Any, suggestion: str) -> None:
    with pytest.raises(GraphError) as caught:
        parse_doc(data)
    assert [p.suggestion for p in caught.value.problems] == [suggestion]
    assert caught.value.problems[0].code == "unknown_key"


@pytest.mark.parametrize("format_", [2, 0, "1", None, 1.5])
def test_only_format_1_is_read(format_: Any) -> None:
    ((pointer, _),) = problems({"format": format_, "nodes": {}})
    assert pointer == "/format"


def test_a_document_without_a_format_says_so() -> None:
    assert problems({"nodes": {}}) == [("/format", "'format' is missing")]


@pytest.mark.parametrize("name", ["A", "1a", "a-b", "a.b", "", "ä", "a" * 201])
def test_names_are_lower_case_words(name: str) -> None:
    ((pointer, _),) = problems({"format": 1, "nodes": {name: {"use": "x"}}})
    assert pointer == f"/nodes/{name}"


def test_a_document_is_written_back_as_it_was_read() -> None:
    data = {
        "$schema": "graph-1.schema.json",
        "format": 1,
        "name": "a",
        "inputs": {
            "seed": {"type": "integer", "default": 0, "minimum": 0, "exclusiveMaximum": 2**63},
            "prompt": {"type": "string", "default": None, "maxLength": 3},
            "items": {"type": "array", "items": {"type": "number", "maximum": 0.5}, "minItems": 1},
        },
        "nodes": {
            "a": {"use": "x.y@1", "inputs": {"deep": [{"ref": "b.c"}, {"literal": {"ref": "no"}}, None, 1.0]}},
            "b": {"use": "graph:z.json", "ui": {"x": 1}, "description": "d"},
        },
        "outputs": {"o": {"ref": "a"}},
        "ui": {"zoom": [1, 2.5], "literal": {"ref": "kept"}},
    }
    text = json.dumps(data)
    written = parse_doc(parse_json(text)).to_json()
    assert written == data
    assert json.dumps(written["inputs"]["seed"]["minimum"]) == "0"
    assert parse_doc(written).to_json() == written


def test_a_default_of_null_is_a_default() -> None:
    doc = parse_doc({**SMALL, "inputs": {"a": {"type": "string", "default": None}, "b": {"type": "string"}}})
    assert not doc.inputs["a"].required
    assert doc.inputs["b"].required


def test_links_are_found_at_any_depth_and_literals_are_left_alone() -> None:
    found: list[Any] = []
    value = {"a": [{"ref": "x.y"}, {"b": {"ref": "z"}}], "c": {"literal": {"ref": "x"}}, "d": {"ref": "q", "e": 1}}
    tree = parse_value(value, "/v", found)
    assert not found
    assert refs_in(tree) == [Ref("x", "y"), Ref("z")]
    assert tree["c"] == {"ref": "x"}
    assert tree["d"] == {"ref": "q", "e": 1}


@pytest.mark.parametrize("ref", ["a.b.c", "A.b", "", ".a", "a.", 5, None, "a b", {"ref": "a"}])
def test_a_bad_link_is_named_with_what_a_link_looks_like(ref: Any) -> None:
    found: list[Any] = []
    parse_value({"a/b": [{"ref": ref}]}, "/v", found)
    (problem,) = found
    assert problem.pointer == "/v/a~1b/0/ref"
    assert problem.code == "bad_link"
    assert "node.port" in problem.wanted


def test_pointers_are_escaped() -> None:
    assert escape_pointer("a/b~c") == "a~1b~0c"


def test_a_missing_graph_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the graph .*no\.json: No such file"):
        read_graph(tmp_path / "no.json")


def test_a_folder_a_pipe_and_a_device_are_not_graphs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="it is not a file"):
            read_graph(path)


def test_a_file_of_100_megabytes_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.truncate(100 * 10**6)
    with pytest.raises(GraphError, match="100,000,000 bytes; a graph file has at most"):
        read_graph(path)
