"""A dialogue is a value: turns, undo and redo, and its file."""

from __future__ import annotations

import json

import pytest

from mezzotint import Dialogue, Edit, UserError
from mezzotint.dialogue import read_dialogue, write_dialogue

BEGUN = Dialogue("g.json", {"seed": 1})
BLUE = BEGUN.after("blue", Edit("set", {"prompt": "blue"}, about="circle"))
TWICE = BLUE.after("seed 2", Edit("set", {"seed": 2}))


def test_a_turn_makes_a_new_dialogue_and_leaves_the_old_one():
    assert BEGUN.turns == () and BEGUN.inputs == {"seed": 1}
    assert TWICE.inputs == {"seed": 2, "prompt": "blue"} and TWICE.about == "circle"


def test_nothing_that_the_caller_holds_can_change_it():
    given = {"words": ["a"]}
    edit = Edit("set", given)
    given["words"].append("b")
    assert edit.inputs == {"words": ["a"]}


def test_undo_and_redo_go_through_what_was_set():
    back = TWICE.after("undo", Edit("undo"))
    assert back.inputs == BLUE.inputs
    further = back.after("undo", Edit("undo"))
    assert further.inputs == BEGUN.inputs and further.about == ""
    assert further.after("redo", Edit("redo")).after("redo", Edit("redo")).inputs == TWICE.inputs


def test_a_new_change_forgets_what_was_undone():
    other = TWICE.after("undo", Edit("undo")).after("red", Edit("set", {"prompt": "red"}))
    with pytest.raises(UserError, match="nothing to redo"):
        other.after("redo", Edit("redo"))


def test_there_is_nothing_before_the_beginning():
    with pytest.raises(UserError, match="nothing to undo"):
        BEGUN.after("undo", Edit("undo"))


def test_none_takes_the_default_again():
    assert TWICE.after("x", Edit("set", {"prompt": None})).inputs == {"seed": 2}


def test_a_file_gives_the_same_dialogue_back(tmp_path):
    path = tmp_path / "new" / "dialogue.json"
    said = TWICE.after("help", Edit("say", text="…")).after("undo", Edit("undo"))
    write_dialogue(path, said)
    assert read_dialogue(path) == said


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", '{"dialogue": 9, "graph": "g", "start": {}, "turns": []}', "[" * 100_000],
)
def test_what_is_no_dialogue_is_an_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"d\.json"):
        read_dialogue(path)


def test_turns_that_do_not_follow_are_refused():
    data = json.loads(json.dumps(TWICE.to_json()))
    data["turns"][1]["inputs"]["seed"] = 9
    with pytest.raises(UserError, match="turn 2"):
        Dialogue.from_json(data)


@pytest.mark.parametrize("given", [("what", {}), ("undo", {"seed": 1}), ("set", {"seed": float("nan")})])
def test_an_edit_is_one_of_four_and_json(given):
    with pytest.raises(ValueError):
        Edit(*given)
