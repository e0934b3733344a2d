"""From a new prompt to inputs of the graph: painted anew with the same seed, or an edit of an earlier picture.

A graph that has the inputs `method` and `source` edits by prompt-to-prompt. Its source is always a prompt whose
picture was painted from that prompt alone, so that edits never pile up on each other: each turn edits the painted
picture anew. A change that attention cannot follow (a thing comes, goes, moves or grows) is painted, and is the
source from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mezzotint import UserError
from mezzotint_dialogue.wording import asked

if TYPE_CHECKING:
    from mezzotint import Dialogue
    from mezzotint_smallworld import Wanted

__all__ = ["prompt_of", "seed_of", "with_prompt", "with_seed"]

Inputs = Mapping[str, Mapping[str, Any]]
PAINTED: Final = {"method": None, "source": None, "blend": None, "cross_until": None, "self_until": None}
RESHAPED: Final = {"cross_until": 0.3, "self_until": 0.1}
"""How long attention holds a thing that gets another shape: the outline is laid down early in a run."""
LAST_SEED: Final = 2**53 - 1


def prompt_of(dialogue: Dialogue, inputs: Inputs) -> str:
    """The prompt as it stands. Raises: UserError: a graph without a prompt."""
    if inputs.get("prompt", {}).get("type") != "string":
        raise UserError(f"this graph has no input `prompt` to change; it has {', '.join(inputs) or 'none'}")
    return str(dialogue.inputs.get("prompt", inputs["prompt"].get("default") or ""))


def seed_of(dialogue: Dialogue, inputs: Inputs) -> int:
    """The seed as it stands. Raises: UserError: a graph without a seed."""
    if inputs.get("seed", {}).get("type") != "integer":
        raise UserError(f"this graph has no input `seed` to change; it has {', '.join(inputs) or 'none'}")
    return int(dialogue.inputs.get("seed", inputs["seed"].get("default") or 0))


def with_seed(dialogue: Dialogue, inputs: Inputs, seed: int) -> dict[str, Any]:
    """The changes that paint the same prompt from other noise."""
    seed_of(dialogue, inputs)
    return {"seed": seed % (LAST_SEED + 1), **_there(PAINTED, inputs)}


def with_prompt(dialogue: Dialogue, inputs: Inputs, prompt: str, *, fresh: bool = False) -> dict[str, Any]:
    """The changes that make the picture of another prompt, with the seed kept.

    fresh: paint it, whatever was there before.
    """
    before = prompt_of(dialogue, inputs)
    painted = {"prompt": prompt, **_there(PAINTED, inputs)}
    if fresh or not {"method", "source"} <= inputs.keys():
        return painted
    edits = dialogue.inputs.get("method", inputs["method"].get("default")) == "edit"
    source = dialogue.inputs.get("source", inputs["source"].get("default")) if edits else before
    if prompt == source:
        return painted
    words = _changing(source, prompt)
    if words is None:
        return painted
    edit = {**PAINTED, "method": "edit", "source": source, "blend": words or None}
    return {"prompt": prompt, **_there({**edit, **(RESHAPED if _reshaped(source, prompt) else {})}, inputs)}


def _there(changes: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Those changes that the graph has inputs for."""
    return {name: value for name, value in changes.items() if name in inputs}


def _changing(source: str, prompt: str) -> list[str] | None:
    """The nouns of what an edit changes, empty where it is the background; None for what must be painted.

    Prompts in other words than the small world's are edits without nouns.
    """
    try:
        old, new = asked(source), asked(prompt)
    except UserError:
        return []
    if _layout(old) != _layout(new):
        return None
    if old.background != new.background:
        return []
    nouns = [
        thing.shape or "shape"
        for pair in zip(old.things, new.things, strict=True)
        if pair[0] != pair[1]
        for thing in pair
    ]
    return list(dict.fromkeys(nouns))


def _reshaped(source: str, prompt: str) -> bool:
    """Whether a thing gets another shape; prompts in other words than the small world's do not say."""
    try:
        old, new = asked(source), asked(prompt)
    except UserError:
        return False
    return [thing.shape for thing in old.things] != [thing.shape for thing in new.things]


def _layout(wanted: Wanted) -> tuple[Any, ...]:
    """What an edit by attention cannot change: how many things, how large and where."""
    return wanted.relation, *((thing.size, thing.place) for thing in wanted.things)
