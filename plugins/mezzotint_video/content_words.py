"""`video.content_words`: what of a clip's prompt is said of its first picture."""

from __future__ import annotations

from mezzotint import UserError, node

__all__ = ["content_words"]


@node("video.content_words")
def content_words(*, prompts: str | list[str]) -> list[str]:
    """Cut the motion off prompts of clips, for a model of pictures that never learnt such words.

    The motion is what follows the last comma; of several things, it is all the phrases at the end that begin with
    "the": "a red circle left of a blue star, the circle moving up, the star still".

    prompts: one, or several. One without a comma stays as it is.

    Raises: UserError: no prompt, or one of which nothing is left.
    """
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    if not asked:
        raise UserError("video.content_words: wanted a prompt, got an empty list")
    return [_picture(prompt) for prompt in asked]


def _picture(prompt: str) -> str:
    phrases = [phrase.strip() for phrase in prompt.split(",")]
    kept = len(phrases) - 1
    while kept > 1 and phrases[kept].startswith("the ") and phrases[kept - 1].startswith("the "):
        kept -= 1
    left = ", ".join(phrases[: max(kept, 1)])
    if not left:
        raise UserError(f"video.content_words: {prompt!r} says nothing of a picture before its last comma")
    return left
