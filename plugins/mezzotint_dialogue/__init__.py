"""Readers of what people say about a picture: by rules, in the small world's words, or by a chat endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mezzotint import hookimpl

__all__ = ["register_interpreters"]


@hookimpl
def register_interpreters(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """ "words" needs nothing; "endpoint" asks a chat model behind an OpenAI-compatible address."""
    from mezzotint_dialogue.endpoint import read_by_endpoint
    from mezzotint_dialogue.words import read_words

    register("words", read_words)
    register("endpoint", read_by_endpoint)
