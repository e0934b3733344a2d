"""Values written in a graph or given to it: what is accepted as what, and that equal values have one form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from mezzotint.document import parse_doc
from mezzotint.errors import GraphError, PluginError, Problem, UserError
from mezzotint.literals import FileRef, Trusted, bind_inputs, canonical, check_declaration
from mezzotint.nodes import node, spec_of
from mezzotint.paths import FileAccess
from mezzotint.ports import Image
from mezzotint.values import Source


@node("t.all")
def everything(
    *,
    integer: int = 0,
    few: Annotated[int, Field(ge=1, le=9)] = 1,
    number: float = 0.0,
    whole: float = 1,
    string: str = "",
    boolean: bool = False,
    mode: Literal["fast", "exact"] = "fast",
    level: Literal[1, 2] = 1,
    pair: tuple[int, int] = (1, 2),
    grid: tuple[tuple[float, ...], ...] = ((1, 2), (3,)),
    some: list[str] | None = None,
    table: dict[str, float] = {},  # noqa: B006
    anything: Any = None,
    image: Image | None = None,
    images: list[Image] = [],  # noqa: B006
    file: Path | None = None,
    files: Annotated[list[Path], Field(max_length=2)] = [],  # noqa: B006
    source: Source | None = None,
) -> str:
    """One input of each kind."""
    return ""


SPEC = spec_of(everything)


def check(name: str, value: Any, folder: Path | None = None) -> tuple[Any, list[Problem]]:
    problems: list[Problem] = []
    found = canonical(SPEC.inputs[name], value, "/v", problems, FileAccess(folder), lambda uri: None)
    return found, problems


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("integer", 5, 5),
        ("integer", 10**300, 10**300),
        ("number", 1, 1.0),
        ("number", 0.1, 0.1),
        ("boolean", True, True),
        ("mode", "exact", "exact"),
        ("level", 2, 2),
        ("pair", [3, 4], [3, 4]),
        ("grid", [[1, 2.5], []], [[1.0, 2.5], []]),
        ("some", None, None),
        ("some", ["a"], ["a"]),
        ("table", {"a": 1}, {"a": 1.0}),
        ("anything", {"a": [1, None, "x", 1.5, True]}, {"a": [1, None, "x", 1.5, True]}),
        ("image", None, None),
        ("images", [], []),
    ],
)
def test_a_right_value_gets_its_one_form(name: str, value: Any, wanted: Any) -> None:
    found, problems = check(name, value)
    assert not problems
    assert repr(found) == repr(wanted)


@pytest.mark.parametrize(
    ("name", "value", "pointer", "message"),
    [
        ("integer", "5", "/v", "valid integer"),
        ("integer", True, "/v", "valid integer"),
        ("integer", 5.0, "/v", "valid integer"),
        ("integer", None, "/v", "valid integer"),
        ("integer", [5], "/v", "valid integer"),
        ("few", 0, "/v", "greater than or equal to 1"),
        ("few", 10, "/v", "less than or equal to 9"),
        ("number", "0.5", "/v", "valid number"),
        ("number", True, "/v", "valid number"),
        ("number", math.nan, "/v", "not JSON"),
        ("number", math.inf, "/v", "not JSON"),
        ("number", 10**400, "/v", "not JSON"),
        ("string", 5, "/v", "valid string"),
        ("string", "\ud800", "/v", "surrogate"),
        ("boolean", 1, "/v", "valid boolean"),
        ("boolean", "true", "/v", "valid boolean"),
        ("mode", "exakt", "/v", "input should be 'fast' or 'exact'"),
        ("level", "1", "/v", "input should be 1 or 2"),
        ("pair", [1], "/v/1", "required"),
        ("pair", [1, "2"], "/v/1", "valid integer"),
        ("grid", [[1], ["x"]], "/v/1/0", "valid number"),
        ("some", [1], "/v/0", "valid string"),
        ("table", {"a": "1"}, "/v", "valid number"),
        ("anything", {1, 2}, "/v", "not JSON"),
        ("anything", [math.nan], "/v", "not JSON"),
        ("image", 5, "/v", "a port takes a link"),
        ("images", ["x"], "/v", "a port takes a link"),
        ("file", 5, "/v", "a file is named by a string"),
        ("files", "x", "/v", "not a list"),
        ("files", ["no.png"], "/v/0", "path 'no.png' is written in a graph that has no folder"),
        ("source", ["x"], "/v", "a source is named by a string"),
    ],
)
def test_a_wrong_value_is_reported_at_its_place(name: str, value: Any, pointer: str, message: str) -> None:
    _, (problem,) = check(name, value)
    assert problem.pointer == pointer
    assert message in problem.message
    assert problem.got or problem.code == "bad_file"


def test_a_near_miss_of_a_word_names_the_word() -> None:
    assert check("mode", "exakt")[1][0].suggestion == "exact"


def test_a_self_containing_list_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert check("anything", loop)[1][0].message == "not JSON"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("whole", 1.0), ("pair", [1, 2]), ("grid", [[1.0, 2.0], [3.0]]), ("table", {}), ("few", 1), ("file", None)],
)
def test_a_default_has_the_form_that_it_would_have_if_it_were_written(name: str, wanted: Any) -> None:
    spec = SPEC.inputs[name]
    assert repr(spec.canonical_default) == repr(wanted)
    if wanted is not None:
        assert repr(check(name, wanted)[0]) == repr(wanted)


def test_a_default_that_breaks_its_own_range_is_left_alone() -> None:
    @node("t.sentinel")
    def sentinel(*, size: Annotated[int, Field(ge=1)] = -1) -> int:
        return size

    assert spec_of(sentinel).inputs["size"].canonical_default == -1


def test_files_in_lists_are_found_and_guarded_like_single_ones(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    (tmp_path / "out.png").touch()
    found, problems = check("files", ["a.png"], tmp_path / "in")
    assert found == [FileRef("a.png", str(tmp_path / "in" / "a.png"), "file")]
    assert not problems
    _, problems = check("files", ["a.png", "../out.png"], tmp_path / "in")
    assert [p.pointer for p in problems] == ["/v/1"]
    assert "leaves the folder" in problems[0].message


def test_a_file_parameter_that_reaches_a_source_becomes_one(tmp_path: Path) -> None:
    path = str(tmp_path / "a.safetensors")
    assert check("source", FileRef("a", path, "file"))[0] == FileRef(path, path, "source")
    assert check("files", [FileRef("a", path, "file")])[0] == [FileRef("a", path, "file")]


def test_a_plugin_that_fails_to_resolve_a_source_is_a_problem_not_a_crash() -> None:
    def fail(uri: str) -> None:
        raise PluginError("plugin 'x' failed")

    problems: list[Problem] = []
    canonical(SPEC.inputs["source"], "x:y", "/v", problems, FileAccess(None), fail)
    assert [p.message for p in problems] == ["plugin 'x' failed"]


@pytest.mark.parametrize("annotation", [dict[str, Path], Path | str, dict[str, list[Source]], list[Path] | int])
def test_a_node_cannot_hide_files_inside_other_types(annotation: Any) -> None:
    def hidden(*, files: Any) -> int:
        return 0

    hidden.__annotations__ = {"files": annotation, "return": int}
    with pytest.raises(PluginError, match="a file inside"):
        node("t.hidden")(hidden)


# --- the graph's own parameters ---


def bind(declared: dict[str, Any], given: dict[str, Any], **along: Any) -> dict[str, Any]:
    doc = parse_doc({"format": 1, "nodes": {}, "inputs": declared})
    return bind_inputs(doc, given, "g.json", came_along=along)


@pytest.mark.parametrize(
    ("declared", "value", "wanted"),
    [
        ({"type": "number"}, 1, 1.0),
        ({"type": "number", "enum": [1, 2]}, 1, 1.0),
        ({"type": "integer", "maximum": 2**63 - 1}, 2**63 - 1, 2**63 - 1),
        ({"type": "array", "items": {"type": "number"}}, [1, 2.5], [1.0, 2.5]),
        ({"type": "array"}, [1, "x"], [1, "x"]),
        ({"type": "object"}, {"a": [1]}, {"a": [1]}),
        ({"type": "string", "default": None}, None, None),
        ({"type": "Image", "default": None}, None, None),
        ({"type": "string", "pattern": "^a+$"}, "aa", "aa"),
    ],
)
def test_a_right_input_is_bound(declared: dict[str, Any], value: Any, wanted: Any) -> None:
    assert repr(bind({"v": declared}, {"v": value})["v"]) == repr(wanted)


@pytest.mark.parametrize(
    ("declared", "value", "pointer", "message"),
    [
        ({"type": "integer"}, "5", "/inputs/v", "valid integer"),
        ({"type": "integer"}, True, "/inputs/v", "valid integer"),
        ({"type": "integer", "maximum": 2**63 - 1}, 2**63, "/inputs/v", "less than or equal"),
        ({"type": "integer", "exclusiveMinimum": 0}, 0, "/inputs/v", "greater than 0"),
        ({"type": "number"}, math.nan, "/inputs/v", "not JSON"),
        ({"type": "string", "enum": ["fast", "exact"]}, "exakt", "/inputs/v", "not one of the choices"),
        ({"type": "string", "pattern": "^a+$"}, "b", "/inputs/v", "match pattern"),
        ({"type": "string", "maxLength": 1}, "bb", "/inputs/v", "at most 1 char"),
        ({"type": "string"}, None, "/inputs/v", "valid string"),
        ({"type": "array", "items": {"type": "integer", "minimum": 0}}, [0, -1], "/inputs/v/1", "greater than"),
        ({"type": "array", "items": {"type": "string", "enum": ["a"]}}, ["a", "b"], "/inputs/v/1", "choices"),
        ({"type": "array", "minItems": 1}, [], "/inputs/v", "at least 1 item"),
        ({"type": "object"}, [], "/inputs/v", "object"),
        ({"type": "array"}, [object()], "/inputs/v", "not JSON"),
        ({"type": "Image"}, 5, "/inputs/v", "a port takes a link"),
    ],
)
def test_a_wrong_input_is_refused(declared: dict[str, Any], value: Any, pointer: str, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        bind({"v": declared}, {"v": value})
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert message in problem.message
    assert problem.file == "g.json"


def test_all_wrong_inputs_are_named_at_once() -> None:
    declared = {
        "prompt": {"type": "string"},
        "steps": {"type": "integer", "default": 1},
        "seed": {"type": "integer"},
    }
    with pytest.raises(GraphError) as caught:
        bind(declared, {"step": 1, "seed": "x"})
    assert {(p.pointer, p.code, p.suggestion) for p in caught.value.problems} == {
        ("/inputs/step", "unknown_input", "steps"),
        ("/inputs/prompt", "missing_input", ""),
        ("/inputs/seed", "bad_value", ""),
    }


def test_an_omitted_input_equals_its_default_written_out() -> None:
    declared = {"scale": {"type": "number", "default": 7}, "list": {"type": "array", "default": [1]}}
    assert repr(bind(declared, {})) == repr(bind(declared, {"scale": 7, "list": [1]}))


def test_only_the_callers_strings_are_trusted() -> None:
    declared = {n: {"type": "string", "default": "d"} for n in "abc"} | {"l": {"type": "array"}}
    bound = bind(declared, {"a": "x", "l": [["y"]]}, b="z")
    assert isinstance(bound["a"], Trusted)
    assert isinstance(bound["l"][0][0], Trusted)
    assert not isinstance(bound["b"], Trusted)
    assert not isinstance(bound["c"], Trusted)


@pytest.mark.parametrize(
    ("declared", "pointer"),
    [
        ({"type": "string", "pattern": "("}, "/i/pattern"),
        ({"type": "string", "minimum": 0}, "/i/minimum"),
        ({"type": "integer", "pattern": "a"}, "/i/pattern"),
        ({"type": "integer", "items": {"type": "string"}}, "/i/items"),
        ({"type": "string", "minItems": 1}, "/i/minItems"),
        ({"type": "number", "format": "image"}, "/i/format"),
        ({"type": "integer", "default": "5"}, "/i/default"),
        ({"type": "integer", "default": 0, "minimum": 1}, "/i/default"),
        ({"type": "array", "items": {"type": "integer"}, "default": [1, "2"]}, "/i/default/1"),
        ({"type": "array", "items": {"type": "string", "minimum": 1}}, "/i/items/minimum"),
        ({"type": "string", "enum": ["a"], "default": "b"}, "/i/default"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_reported_in_its_declaration(declared: Any, pointer: str) -> None:
    problems: list[Problem] = []
    check_declaration(parse_doc({"format": 1, "nodes": {}, "inputs": {"i": declared}}).inputs["i"], "/i", problems)
    assert [p.pointer for p in problems] == [pointer]


def test_a_pattern_of_exponential_cost_is_not_one_here() -> None:
    with pytest.raises(GraphError, match="match pattern"):
        bind({"v": {"type": "string", "pattern": "^(a+)+$"}}, {"v": "a" * 5000 + "b"})


def test_a_missing_file_of_the_caller_is_named() -> None:
    with pytest.raises(UserError, match=r"there is no file 'no/such\.png'"):
        FileAccess.resolve_trusted("no/such.png")
