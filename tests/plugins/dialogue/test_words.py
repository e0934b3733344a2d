"""The interpreter by rules: what each sentence asks for, what "it" is, and what it says of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mezzotint import Dialogue, UserError
from mezzotint_dialogue.words import read_words

GRAPHS = Path(__file__).parents[3] / "graphs"
INPUTS = json.loads((GRAPHS / "outlook" / "interactive_editing.json").read_text("utf-8"))["inputs"]
ONE = "a large red circle on a white background"
TWO = "a small green ring above a red star, blue background"


def said(prompt, *sentences, inputs=INPUTS):
    dialogue = Dialogue("g.json", {"prompt": prompt})
    for words in sentences:
        dialogue = dialogue.after(words, read_words(dialogue, words, inputs=inputs))
    return dialogue


@pytest.mark.parametrize(
    ("prompt", "sentence", "after"),
    [
        (ONE, "make it blue", "a large blue circle on a white background"),
        (ONE, "Could you make it BLUE, please?", "a large blue circle on a white background"),
        (ONE, "blue", "a large blue circle on a white background"),
        (ONE, "make it smaller", "a red circle on a white background"),
        (ONE, "turn it into a small star", "a small red star on a white background"),
        (ONE, "move it left", "a large red circle on the left on a white background"),
        (ONE, "put it at the top", "a large red circle at the top on a white background"),
        (ONE, "add a star above", "a star above a large red circle on a white background"),
        (ONE, "add a blue star to the left of it", "a blue star left of a large red circle on a white background"),
        (ONE, "put it on a black background", "a large red circle on a black background"),
        (ONE, "make the background orange", "a large red circle on an orange background"),
        (ONE, "red and white striped background", "a large red circle on a red and white striped background"),
        (ONE, "make it blue and larger, then put it on a black background", None),
        (ONE, "small and blue, add a ring below", "a ring below a small blue circle on a white background"),
        (ONE, "draw a ring at the top, black background", "a ring at the top, black background"),
        (TWO, "remove the ring", "a red star, blue background"),
        (TWO, "move the star left", "a small green ring right of a red star, blue background"),
        (TWO, "move the star above the ring", "a small green ring below a red star, blue background"),
        (TWO, "swap them", "a small green ring below a red star, blue background"),
        (TWO, "make the red one larger", "a small green ring above a large red star, blue background"),
        (TWO, "replace the star with a blue heart", "a small green ring above a blue heart, blue background"),
    ],
)  # fmt: skip
def test_a_sentence_changes_the_prompt_as_it_says(prompt, sentence, after):
    if after is None:
        with pytest.raises(UserError, match="as large as"):
            said(prompt, sentence)
    else:
        assert said(prompt, sentence).inputs["prompt"] == after


def test_it_is_the_thing_spoken_of_last():
    assert said(TWO, "make it blue").inputs["prompt"] == TWO.replace("green", "blue")
    assert said(TWO, "make the star larger", "make it white").inputs["prompt"] == TWO.replace("red", "large white")
    assert said(ONE, "add a star above", "make it green").inputs["prompt"].startswith("a green star above")


def test_undo_gives_it_its_meaning_back():
    dialogue = said(TWO, "make the star larger", "make the ring white", "undo", "make it yellow")
    assert dialogue.inputs["prompt"] == TWO.replace("red", "large yellow")


@pytest.mark.parametrize(
    ("prompt", "sentence", "why"),
    [
        (ONE, "make it blu", "'blu'; did you mean 'blue'"),
        (ONE, "move it rite", "'rite' .* did you mean 'right'"),
        (ONE, "add a hexagon", "no shape 'hexagon'; it has circle"),
        (ONE, "on a pink background", "no colour 'pink'; it has red"),
        (ONE, "remove the ring", "no ring in the picture; there is a large red circle"),
        (ONE, "remove it", "all there is"),
        (ONE, "make it bigger", "as large as things are"),
        (ONE, "make it red", "changes nothing"),
        (ONE, "frobnicate the thing", "'frobnicate'"),
        (ONE, "make it", "what can I say"),
        (ONE, "  ?!", "say what to change"),
        (ONE, "a" * 3000, "3000 letters"),
        (ONE, "undo", "nothing to undo"),
        (ONE, "draw a flying pig", "small world's words"),
        (TWO, "add a heart", "room for two"),
        (TWO, "move it to the centre", "of two things"),
        (TWO, "move the ring up", "already"),
        ("a red star above a blue star", "make the star green", "could be either"),
        ("a photo of a cat", "make it blue", "--interpreter endpoint"),
    ],
)
def test_what_cannot_be_done_is_named_with_the_nearest_that_can(prompt, sentence, why):
    with pytest.raises(UserError, match=why):
        said(prompt, sentence)


def test_help_names_every_colour_and_shape():
    text = said(ONE, "what can I say").turns[-1].edit.text
    assert all(word in text for word in ("undo", "red", "purple", "cross", "diamond"))


def test_the_seed_stays_until_another_is_asked_for():
    assert "seed" not in said(ONE, "make it blue").inputs
    assert said(ONE, "again with another seed", "try again").inputs["seed"] == 2
    assert said(ONE, "seed 7").inputs["seed"] == 7
    assert said(ONE, "steps 12").inputs["steps"] == 12


def test_a_change_of_colour_is_an_edit_of_the_painted_picture_and_does_not_pile_up():
    inputs = said(ONE, "make it blue", "make it green").inputs
    assert (inputs["method"], inputs["source"], inputs["blend"]) == ("edit", ONE, ["circle"])
    assert inputs["prompt"] == ONE.replace("red", "green")


def test_a_change_back_to_the_source_is_painted():
    assert said(ONE, "make it blue", "make it red").inputs == {"prompt": ONE}


@pytest.mark.parametrize("sentence", ["move it left", "make it smaller", "add a star above", "seed 4"])
def test_what_attention_cannot_follow_is_painted(sentence):
    inputs = said(ONE, "make it blue", sentence).inputs
    assert not {"method", "source", "blend"} & inputs.keys()


def test_a_change_of_shape_is_held_for_less_of_the_run_and_the_next_change_of_colour_for_more():
    star = said(ONE, "turn it into a star")
    assert (star.inputs["cross_until"], star.inputs["blend"]) == (0.3, ["circle", "star"])
    back = said(ONE, "turn it into a star", "turn it into a circle", "make it blue")
    assert "cross_until" not in back.inputs and back.inputs["method"] == "edit"


def test_a_change_of_the_background_blends_nothing():
    inputs = said(ONE, "put it on a black background").inputs
    assert inputs["method"] == "edit" and "blend" not in inputs


def test_a_graph_without_a_method_gets_its_prompt_alone():
    inputs = json.loads((GRAPHS / "text_to_image.json").read_text("utf-8"))["inputs"]
    assert said(ONE, "make it blue", inputs=inputs).inputs == {"prompt": ONE.replace("red", "blue")}


def test_a_graph_without_a_prompt_or_a_seed_says_so():
    for sentence in ("make it blue", "another seed"):
        with pytest.raises(UserError, match=r"no input `(prompt|seed)`"):
            said(ONE, sentence, inputs={"size": {"type": "integer"}})
