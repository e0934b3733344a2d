"""Batches: rows and sweeps as runs, file names that tell them apart, and all that is wrong at once."""

from __future__ import annotations

import pytest

from mezzotint.batch import Item, make_items, slug
from mezzotint.document import parse_doc
from mezzotint.errors import UserError


@pytest.fixture
def doc():
    return parse_doc(
        {
            "format": 1,
            "inputs": {
                "picture": {"type": "string", "format": "image", "default": None},
                "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                "prompt": {"type": "string", "default": ""},
                "seed": {"type": "integer", "default": 0, "minimum": 0},
                "scale": {"type": "number", "default": 1.0},
                "tiled": {"type": "boolean", "default": False},
                "sizes": {"type": "array", "items": {"type": "integer"}, "default": []},
            },
            "nodes": {},
        }
    )


def varied(doc, **axes):
    return [dict(item.varied) for item in make_items(doc, {}, **axes)]


@pytest.mark.parametrize(
    ("sweep", "values"),
    [
        ("seed=0..3", [0, 1, 2, 3]),
        ("seed=5..5", [5]),
        ("seed=0..90..30", [0, 30, 60, 90]),
        ("seed=1,3 , 7", [1, 3, 7]),
        ("scale=-2..0", [-2, -1, 0]),
        ("scale=1.5,2e1", [1.5, 20.0]),
        ("tiled=true,false", [True, False]),
        ("prompt=a,b", ["a", "b"]),
        ('prompt=["a, b", "c"]', ["a, b", "c"]),
        ("sizes=[[1, 2], [3]]", [[1, 2], [3]]),
    ],
)
def test_a_sweep_is_a_range_or_a_list(doc, sweep, values):
    name = sweep.partition("=")[0]
    assert [row[name] for row in varied(doc, sweeps=[sweep])] == values


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("seed", "wanted INPUT=VALUES"),
        ("sed=1", "did you mean 'seed'"),
        ("seed=3..1", "going up"),
        ("seed=0..9..0", "going up"),
        ("seed=x", "wanted an integer"),
        ("seed=", "wanted an integer"),
        ("seed=-1,0", "greater than or equal to 0"),
        ("seed=0..999999999999", "more than 100,000 values"),
        ("mode=a,c", "not one of the choices"),
        ("sizes=1,2", "a JSON list"),
        ('prompt=["a', "wanted JSON"),
    ],
)
def test_a_sweep_that_is_wrong_is_named(doc, sweep, message):
    with pytest.raises(UserError, match=message):
        make_items(doc, {}, sweeps=[sweep])


def test_sweeps_multiply_the_last_fastest(doc):
    rows = varied(doc, sweeps=["mode=a,b", "seed=0..1"])
    assert rows == [{"mode": m, "seed": s} for m in "ab" for s in (0, 1)]


def test_inputs_that_do_not_vary_are_in_every_run(doc):
    assert [i.inputs for i in make_items(doc, {"scale": 2.0}, sweeps=["seed=1,2"])] == [
        {"scale": 2.0, "seed": 1},
        {"scale": 2.0, "seed": 2},
    ]


def test_lines_are_for_the_first_string_that_is_neither_a_file_nor_a_choice(doc, tmp_path):
    (tmp_path / "p.txt").write_text("\ufeffone, two\r\n\n  three \n", encoding="utf-8")
    assert varied(doc, each=[str(tmp_path / "p.txt")]) == [{"prompt": "one, two"}, {"prompt": "three"}]


def test_a_table_has_a_column_per_input_and_empty_cells_are_defaults(doc, tmp_path):
    (tmp_path / "t.csv").write_text('seed,prompt,tiled,sizes\n1,"a ""b"", c",true,"[1,2]"\n2,,,3\n')
    assert varied(doc, each=[str(tmp_path / "t.csv")]) == [
        {"seed": 1, "prompt": 'a "b", c', "tiled": True, "sizes": [1, 2]},
        {"seed": 2, "sizes": [3]},
    ]


def test_lines_of_json_have_a_key_per_input(doc, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"seed": 1, "sizes": [1]}\n\n{"scale": 2}\n')
    assert varied(doc, each=[str(tmp_path / "t.jsonl")]) == [{"seed": 1, "sizes": [1]}, {"scale": 2}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "seed,sed\n1,2\n", r"t.csv line 2, sed: .* did you mean 'seed'"),
        ("t.csv", "seed\nx\n", r"t.csv line 2, seed: wanted an integer, got 'x'"),
        ("t.csv", "seed\n-1\n", r"t.csv line 2, seed: input should be greater"),
        ("t.csv", 'seed\n"1\n', r"t.csv line \d: not valid CSV"),
        ("t.csv", "seed,scale\n1\n", r"t.csv line 2: 2 columns are wanted"),
        ("t.csv", "", "no runs"),
        ("t.txt", "\n\n", "no runs"),
        ("t.jsonl", "{", r"t.jsonl line 1: not valid JSON"),
        ("t.jsonl", "[1]", r"t.jsonl line 1: wanted a JSON object"),
        ("t.jsonl", '{"seed": 1.5}', r"t.jsonl line 1, seed: "),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_line(doc, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        make_items(doc, {}, each=[str(tmp_path / name)])


def test_bytes_that_are_no_text_are_named(doc, tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        make_items(doc, {}, each=[str(tmp_path / "t.txt")])


def test_many_mistakes_are_counted_and_not_all_shown(doc, tmp_path):
    (tmp_path / "t.csv").write_text("seed\n" + "x\n" * 50)
    with pytest.raises(UserError, match="and 30 more"):
        make_items(doc, {}, each=[str(tmp_path / "t.csv")])


def test_an_input_is_said_in_one_place_only(doc):
    with pytest.raises(UserError, match="'seed' is given twice"):
        make_items(doc, {"seed": 1}, sweeps=["seed=1,2"])
    with pytest.raises(UserError, match="'seed' is given twice"):
        make_items(doc, {}, sweeps=["seed=1,2", "seed=3"])


def test_batches_are_bounded(doc):
    with pytest.raises(UserError, match="1,000,000 runs"):
        make_items(doc, {}, sweeps=["seed=0..999", "scale=0..999"])


def test_names_of_files_tell_the_runs_apart_and_suit_every_system():
    item = Item({}, {"seed": 3, "prompt": "A red/blue circle: 50% … «x» \\ ..", "tiled": True})
    assert item.stem("text") == "text-seed-3-prompt-A-red-blue-circle-50-x-tiled-true"
    assert item.label.startswith("seed=3, prompt=A red/blue circle")
    assert len(Item({}, {"prompt": "word " * 100}).stem("text")) <= 120
    assert slug("../..") == "x"
    assert slug("größe 3") == "größe-3"
