"""docs/interactive-editing.md: what it says can be said is understood, and its examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mezzotint import Dialogue, UserError
from mezzotint.cli import run_verbs
from mezzotint_dialogue.words import read_words

PAGE = "interactive-editing.md"
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
INPUTS = json.loads((ROOT / "graphs" / "outlook" / "interactive_editing.json").read_text("utf-8"))["inputs"]
ROWS = re.findall(r"^\| [a-z ,]+ \| (`.*`) \|$", TEXT, re.M)
SENTENCES = [said for row in ROWS for said in re.findall(r"`([^`]+)`", row) if said != "quit"]
PROMPTS = (
    "a red circle in the centre, white background",
    "a green ring left of a red star, white background",
    "a red star left of a green circle, white background",
)


def understood(sentence, prompt):
    dialogue = Dialogue("g.json", {"prompt": prompt})
    if sentence in ("undo", "redo"):
        return read_words(dialogue, sentence, inputs=INPUTS)
    return dialogue.after(sentence, read_words(dialogue, sentence, inputs=INPUTS))


def marked(blocks, mark):
    return next(block.text for block in blocks(PAGE) if block.mark == f"test: {mark}")


@pytest.mark.parametrize("sentence", SENTENCES)
def test_each_sentence_of_the_table_is_understood_of_some_picture(sentence):
    for prompt in PROMPTS:
        try:
            understood(sentence, prompt)
        except UserError:
            continue
        return
    pytest.fail(sentence)


def test_the_table_is_read():
    assert len(SENTENCES) > 20


def test_the_script_is_understood(blocks):
    dialogue = Dialogue("g.json")
    for line in marked(blocks, "pipe").splitlines():
        dialogue = dialogue.after(line, read_words(dialogue, line, inputs=INPUTS))
    assert dialogue.inputs["prompt"] == "a large blue circle on a black background"


def test_its_errors_say_what_it_says(blocks):
    for line in marked(blocks, "errors").splitlines():
        sentence, why = line.split(" => ")
        with pytest.raises(UserError, match=re.escape(why)):
            understood(sentence, PROMPTS[0])


def test_its_python_runs(blocks, tmp_path, monkeypatch):
    names: dict = {}
    code = compile(marked(blocks, "python"), PAGE, "exec")
    exec(code, names)
    assert names["back"].turns


def test_its_command_lines_have_the_flags_that_they_name(capsys):
    assert run_verbs(["chat", "bundled:graphs/outlook/interactive_editing.json", "--help"]) == 0
    shown = capsys.readouterr().out
    assert {flag for flag in re.findall(r"--[a-z]+", TEXT) if flag not in shown} == set()


def test_the_pages_that_it_links_are_there():
    for target in re.findall(r"\]\(([\w/.-]+)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
