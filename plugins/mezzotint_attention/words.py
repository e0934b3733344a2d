"""Where the words of a prompt are among its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from mezzotint import UserError

__all__ = ["columns", "prompt_words", "token_ids"]


def token_ids(encoder: Any, prompt: str) -> list[int]:
    """A prompt's tokens as the encoder reads them, with its marks and padding.

    encoder: realised, with transformers' tokenizer.
    Raises: UserError: an encoder without such a tokenizer.
    """
    if not hasattr(encoder, "tokens"):
        raise UserError("this text encoder has no tokenizer that words could be found with; take CLIP's")
    return [int(number) for number in encoder.tokens([prompt])[0]]


def prompt_words(prompt: str) -> list[str]:
    """The words of a prompt, without punctuation, as they stand."""
    words = [word.strip(".,;:!?\"'()[]") for word in prompt.split()]
    return [word for word in words if word]


def columns(encoder: Any, prompt: str, words: str | Sequence[str], *, where: str = "attention") -> list[int]:
    """The numbers of the tokens that spell words in a prompt, in order; of a word that occurs twice, both.

    encoder: realised. words: each a word, or several that follow each other ("red circle").
    where: the node that asks, for messages.
    Raises: UserError: a word that is not in the prompt, with the nearest that is.
    """
    ids = token_ids(encoder, prompt)
    found: set[int] = set()
    for word in [words] if isinstance(words, str) else words:
        at = _occurrences(ids, _spelt(encoder, word))
        if not at or not word.strip():
            raise UserError(f"{where}: {word!r} is not in the prompt {prompt!r}{_hint(word, prompt)}")
        found.update(at)
    return sorted(found)


def _spelt(encoder: Any, word: str) -> list[int]:
    return list(encoder.tokenizer(word, add_special_tokens=False).input_ids)


def _occurrences(ids: Sequence[int], part: Sequence[int]) -> list[int]:
    starts = [i for i in range(len(ids) - len(part) + 1) if part and list(ids[i : i + len(part)]) == list(part)]
    return [start + offset for start in starts for offset in range(len(part))]


def _hint(word: str, prompt: str) -> str:
    there = prompt_words(prompt)
    near = get_close_matches(word, there, 1)
    if near:
        return f"; the nearest word there is {near[0]!r}"
    return f"; its words are {', '.join(map(repr, there))}" if there else ", which is empty"
