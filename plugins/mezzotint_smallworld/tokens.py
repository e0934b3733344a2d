"""The small world's tokenizer: CLIP's own files, one token per word of the grammar.

A byte-level BPE whose merges spell each known word from left to right, so `transformers` loads it
as `CLIPTokenizer` and any other text falls back to its bytes. Ids run: 256 bytes, 256 bytes that
end a word, merges in order, <|startoftext|>, <|endoftext|>. After Radford et al. 2021 (CLIP).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from mezzotint_smallworld.captions import (
    GRADIENT_WORDS,
    PLACE_WORDS,
    RELATION_WORDS,
    STRIPE_WORDS,
)
from mezzotint_smallworld.scene import COLOURS, SHAPES, UNNAMED_COLOURS, UNNAMED_SHAPES

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
LENGTH: Final = 32
WORD_END: Final = "</w>"

# In the vocabulary, never in a caption: the never-named first, then words to teach new things with.
SPARE_WORDS: Final = (
    *UNNAMED_COLOURS,
    *UNNAMED_SHAPES,
    *("brown", "grey", "cyan", "magenta", "bright", "dark", "soft", "striking"),
    *("oval", "moon", "arrow", "flower", "house", "tree", "cat", "dog", "toy", "thing"),
    *("picture", "photo", "painting", "style", "moving", "still", "up", "down", "with", "two"),
)


def grammar_words() -> tuple[str, ...]:
    """Every word that a caption of the grammar can hold, the comma included; sorted, each once."""
    phrases = [*COLOURS, *SHAPES, "a an shape small large background on ,"]
    phrases += [wording for table in (PLACE_WORDS, RELATION_WORDS) for wording in _flat(table)]
    phrases += [wording.replace("{}", "") for wording in (*GRADIENT_WORDS, *STRIPE_WORDS)]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


@lru_cache(maxsize=1)
def merges() -> tuple[tuple[str, str], ...]:
    """The BPE merges, in order of rank.

    A merge added later ranks below all earlier ones, so a word that is one token stays one.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in (*grammar_words(), *SPARE_WORDS):
        pieces = _apply(ranks, [*word[:-1], word[-1] + WORD_END])
        while len(pieces) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return tuple(ranks)


def length(caption: str) -> int:
    """How many tokens a caption of lower-case words and commas is, without start and end."""
    return sum(_length_of(word) for word in caption.replace(",", " , ").split())


@lru_cache(maxsize=4096)
def _length_of(word: str) -> int:
    return len(_apply(_ranks(), [*word[:-1], word[-1] + WORD_END]))


@lru_cache(maxsize=1)
def _ranks() -> dict[tuple[str, str], int]:
    return {pair: rank for rank, pair in enumerate(merges())}


def vocabulary() -> dict[str, int]:
    """Token to id, dense from 0; <|endoftext|> has the highest id, as in CLIP."""
    symbols = _byte_symbols()
    tokens = [*symbols, *(symbol + WORD_END for symbol in symbols)]
    tokens += [left + right for left, right in merges()]
    tokens += [START, END]
    return {token: index for index, token in enumerate(tokens)}


def write_tokenizer(folder: str | Path) -> Path:
    """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.

    folder: made if missing; a pipeline keeps it under the name "tokenizer". The bytes written are
    the same on every run. Returns the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {
        **special,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": LENGTH,
        "tokenizer_class": "CLIPTokenizer",
    }
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges())]
    _write(folder / "vocab.json", json.dumps(vocabulary(), ensure_ascii=False))
    _write(folder / "merges.txt", "\n".join(lines))
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2))
    _write(folder / "special_tokens_map.json", json.dumps(special, indent=2))
    return folder


def _write(path: Path, text: str) -> None:
    path.write_bytes((text + "\n").encode("utf-8"))


def _flat(table: dict[str, tuple[str, ...]]) -> Iterable[str]:
    return (wording for wordings in table.values() for wording in wordings)


def _apply(ranks: dict[tuple[str, str], int], pieces: list[str]) -> list[str]:
    """Byte-pair encode one word: always the pair of the lowest rank first."""
    while True:
        known = [pair for pair in pairwise(pieces) if pair in ranks]
        if not known:
            return pieces
        best = min(known, key=ranks.__getitem__)
        index = 0
        while index < len(pieces) - 1:
            if (pieces[index], pieces[index + 1]) == best:
                pieces[index : index + 2] = [best[0] + best[1]]
            index += 1


def _byte_symbols() -> list[str]:
    """GPT-2's printable stand-in for each byte, printable bytes first, as CLIP orders them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
