"""What a chat model may answer: the schema, the instructions that go with it, and the check of what came back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mezzotint import Edit, UserError
from mezzotint_dialogue.compiling import prompt_of, seed_of, with_prompt, with_seed

if TYPE_CHECKING:
    from mezzotint import Dialogue

__all__ = ["SCHEMA", "Answer", "compiled", "messages", "read_answer"]

HISTORY: Final = 12
INSTRUCTIONS: Final = """\
You refine one picture, which a text-to-image model paints from a prompt. You get what the user says and answer \
with one JSON object of this schema and nothing else:
{schema}
action "prompt": the picture changes; give the whole new prompt. Change only what was asked; keep every other \
word and their order.
action "seed": the same prompt again from other noise; give `seed`, or null for the next one.
action "undo", "redo": go back, or forward again.
action "say": you need to ask, or it cannot be done: say so in `text`.
The prompts that this model understands best: {style}"""
STYLE: Final = (
    "'a large red circle left of a small green ring on a white background': one or two of circle, square, "
    "triangle, star, heart, ring, diamond, cross; small or large; red, green, blue, yellow, orange, purple, "
    "white, black; on the left, on the right, at the top, at the bottom, in the centre for one thing; left of, "
    "right of, above, below, and between two; "
    "'red to blue gradient background' and 'red and blue striped background' too"
)


class Answer(BaseModel):
    """One action. There is none that names files, models or nodes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    action: Literal["prompt", "seed", "undo", "redo", "say"]
    prompt: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    text: Annotated[str, Field(max_length=2000)] = ""


SCHEMA: Final[dict[str, Any]] = Answer.model_json_schema()


def messages(dialogue: Dialogue, said: str, inputs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """The conversation as a chat model gets it: the instructions, the last turns, what is said now."""
    system = INSTRUCTIONS.format(schema=json.dumps(SCHEMA), style=STYLE)
    told = [{"role": "system", "content": system}]
    for turn in dialogue.turns[-HISTORY:]:
        answer = {"action": _action(turn.edit), "prompt": turn.edit.inputs.get("prompt"), "text": turn.edit.text}
        told.append({"role": "user", "content": turn.said})
        told.append({"role": "assistant", "content": json.dumps(answer)})
    now = f"The prompt is now: {prompt_of(dialogue, inputs)!r}.\n{said}"
    return [*told, {"role": "user", "content": now}]


def _action(edit: Edit) -> str:
    return edit.kind if edit.kind != "set" else "prompt" if "prompt" in edit.inputs else "seed"


def read_answer(text: str) -> Answer:
    """Raises: UserError: what is no JSON, or not of the schema; a short message, for the model too."""
    body = text.strip()
    if body.startswith("```") and body.endswith("```"):
        body = body[3:-3].removeprefix("json").strip()
    try:
        answer = Answer.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserError(f"the answer is not of the schema: {what}"[:300]) from error
    if answer.action == "prompt" and not (answer.prompt or "").strip():
        raise UserError('the answer is not of the schema: action "prompt" wants a prompt')
    return answer


def compiled(dialogue: Dialogue, inputs: Mapping[str, Mapping[str, Any]], answer: Answer) -> Edit:
    """The edit that an answer means."""
    if answer.action in ("undo", "redo"):
        return Edit("undo" if answer.action == "undo" else "redo", text=answer.text)
    if answer.action == "say":
        return Edit("say", text=answer.text or "(no answer)")
    if answer.action == "seed":
        seed = answer.seed if answer.seed is not None else seed_of(dialogue, inputs) + 1
        return Edit("set", with_seed(dialogue, inputs, seed), text=answer.text)
    assert answer.prompt is not None
    prompt = " ".join(answer.prompt.split())
    return Edit("set", with_prompt(dialogue, inputs, prompt), text=answer.text or prompt)
