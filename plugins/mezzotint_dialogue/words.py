"""The bundled interpreter: instructions by rule, in the words of the small world.

A sentence is taken apart into clauses ("make it blue and add a star above it"); each changes what the prompt asks
for, and the prompt that comes out is compiled to inputs of the graph. What does not depend on the prompt's words
(undo, another seed, an input by its name) works with any graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mezzotint import Edit, UserError
from mezzotint_dialogue.compiling import prompt_of, seed_of, with_prompt, with_seed
from mezzotint_dialogue.scene_edits import Picture, change
from mezzotint_dialogue.vocabulary import (
    FILLERS,
    HELP,
    clauses,
    not_understood,
)
from mezzotint_dialogue.wording import asked, phrase, worded

if TYPE_CHECKING:
    from mezzotint import Dialogue

__all__ = ["read_words"]

UNDO: Final = {"undo", "undo that", "undo it", "go back", "back", "take that back", "revert"}
REDO: Final = {"redo", "redo that", "redo it", "undo the undo", "forward"}
ASK: Final = {"what can i say", "what can you do", "help"}
AGAIN: Final = {
    "again with another seed", "another seed", "with another seed", "use another seed", "again", "try again",
    "another one", "again with a new seed", "new seed", "do it again",
}  # fmt: skip
SEED: Final = re.compile(r"(?:again )?(?:with |use |set )?(?:the )?seed (?:to )?(\d{1,15})")
SET: Final = re.compile(r"(?:set |use )?(\w+)(?: to| =)? (\S+)")
DRAW: Final = re.compile(
    r"(?:draw|paint|show me|new picture|start over with|start again with)[ :]+((?:an? |on ).+)"
)
LONGEST: Final = 2000


def read_words(dialogue: Dialogue, said: str, *, inputs: Mapping[str, Mapping[str, Any]]) -> Edit:
    """What was said, by rules.

    Raises: UserError: words that it did not understand, with the nearest that it would have; what cannot be done
        to this picture.
    """
    text = _plain(said)
    if text in UNDO:
        return Edit("undo")
    if text in REDO:
        return Edit("redo")
    if text in ASK:
        return Edit("say", text=HELP)
    if text in AGAIN:
        return Edit("set", with_seed(dialogue, inputs, seed_of(dialogue, inputs) + 1))
    if found := SEED.fullmatch(text):
        return Edit("set", with_seed(dialogue, inputs, int(found[1])))
    if (found := SET.fullmatch(text)) and _settable(inputs.get(found[1], {})):
        return Edit("set", {found[1]: _number(found[1], found[2], inputs[found[1]])})
    if found := DRAW.fullmatch(said.strip().rstrip(".!").lower()):
        return _drawn(dialogue, found[1], inputs)
    return _changed(dialogue, text, inputs)


def _plain(said: str) -> str:
    """Lower case, no marks but commas, no polite words. Raises: UserError: nothing, or far too much."""
    if len(said) > LONGEST:
        raise UserError(f"{len(said)} letters are more than I read at once; say it in at most {LONGEST}")
    words = re.sub(r"[.!?\"“”]+(?=\s|$)|[\"“”]", " ", said.lower().replace(";", ",")).replace(",", " , ").split()
    text = " ".join(words).strip(" ,")
    for filler in FILLERS:
        text = re.sub(rf"(?:^|(?<= )){filler}(?= |$)", "", text)
    text = " ".join(text.split()).strip(" ,")
    if not text:
        raise UserError("say what to change, e.g. `make it blue`; `what can I say` lists it all")
    return text


def _settable(doc: Mapping[str, Any]) -> bool:
    return doc.get("type") in ("integer", "number")


def _number(name: str, text: str, doc: Mapping[str, Any]) -> float:
    try:
        return int(text) if doc["type"] == "integer" else float(text)
    except ValueError:
        raise UserError(f"{name} is {doc['type']}, got {text!r}") from None


def _drawn(dialogue: Dialogue, prompt: str, inputs: Mapping[str, Mapping[str, Any]]) -> Edit:
    wanted = asked(prompt)
    return Edit("set", with_prompt(dialogue, inputs, prompt, fresh=True), about=phrase(wanted.things[0]))


def _changed(dialogue: Dialogue, text: str, inputs: Mapping[str, Mapping[str, Any]]) -> Edit:
    """The picture that the clauses leave."""
    before = prompt_of(dialogue, inputs)
    try:
        wanted = asked(before)
    except UserError as error:
        raise UserError(
            f"the picture's prompt is {before!r}, and {error}. Say `draw` and a prompt in those words, or let a "
            "chat model read what you say: --interpreter endpoint"
        ) from error
    picture = Picture.of(wanted, dialogue.about)
    for clause in clauses(text):
        made = change(picture, clause)
        if made is None:
            raise not_understood(clause)
        picture = made
    after = worded(picture.wanted, like=before)
    about = phrase(picture.wanted.things[picture.it])
    if after == worded(wanted, like=before):
        raise UserError(f"that changes nothing: the picture's prompt is {before!r}")
    return Edit("set", with_prompt(dialogue, inputs, after), text=after, about=about)
