"""Words that a text encoder is taught: rows beside its table of tokens, which stays as it is.

Textual inversion, Gal et al. 2022: what a picture's subject is called is found as one vector, or several. A word
is put on an encoder as a patch, and any prompt can then use it; a prompt without it is encoded in the same bits.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mezzotint import Patch, Source, TextEncoder, UserError, Weights, node
from mezzotint_models.packed import Part, recipe_for, weights_of

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context

__all__ = ["LearntWords", "learnt_words", "pack_words", "worded"]


@dataclass(frozen=True, eq=False)
class LearntWords(Patch):
    """Words on a text encoder. source, config, weights: of a recipe, see `recipe_for`. strength: of the rows."""

    source: Source
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    mutates: ClassVar[bool] = True

    @contextmanager
    def apply(self, model: Any, ctx: Context) -> Iterator[Any]:
        """Raises: UserError: an encoder of another width, or without CLIP's kind of tokens."""
        rows = {name: value.to(ctx.device) for name, value in weights_of(self).tensors.items()}
        with worded(model, rows) as made:
            yield made


@node("models.learnt_words")
def learnt_words(
    encoder: TextEncoder, weights: Weights | None = None, *, source: Source | None = None, part: Part = ""
) -> TextEncoder:
    """A text encoder that knows words which training found; models.encode_text then reads them in prompts.

    encoder: the one that they were learnt for.
    weights: what training gave; in its place, `source`.
    source: a .safetensors file that a training graph wrote, or its bundled name.
    part: which part of those, where several are words.

    Raises: UserError: both or neither are given; no words in there. When the encoder runs: another width, or a
    word that it has already.
    """
    _, recipe = recipe_for("words", weights, source, part, node="models.learnt_words")
    return encoder.patched(LearntWords(**recipe))


@node("models.read_words")
def read_words(
    source: Source, *, word: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\S+$")] = ""
) -> Weights:
    """A learnt word from an embedding file of the ecosystem: that of diffusers, or of AUTOMATIC1111's web UI.

    source: a .safetensors file with one embedding: a tensor named like the word, or `emb_params`.
    word: what to call it in prompts; empty takes the file's own name for it.

    Raises: UserError: a pickle, or a file without one embedding [n, D].
    """
    from pathlib import Path

    from safetensors import safe_open

    from mezzotint_models.description import read_header, refuse_pickle

    path = Path(source.path)
    refuse_pickle(path)
    read_header(path)
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name).clone() for name in file.keys()}
    rows = {name: value for name, value in found.items() if value.ndim in (1, 2) and value.is_floating_point()}
    if len(rows) != 1 or not all(value.numel() for value in rows.values()):
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in found.items()) or "nothing"
        raise UserError(f"{source.uri}: wanted one embedding [n, D], got {shapes}")
    [(name, value)] = rows.items()
    called = word or (path.stem if name == "emb_params" else name)
    return pack_words({called: value if value.ndim == 2 else value[None]})


@node("models.export_words")
def export_words(weights: Weights, *, part: Part = "") -> Weights:
    """Learnt words as an embedding file that diffusers and the web UIs read: the word's rows under its name.

    weights: what training gave.
    part: which part of those, where several are words.
    Raises: UserError: no words in there.
    """
    _, recipe = recipe_for("words", weights, None, part, node="models.export_words")
    rows = weights_of(LearntWords(**recipe)).tensors
    return Weights({name: value.contiguous() for name, value in rows.items()}, kind="rows", target="embedding")


def pack_words(rows: Mapping[str, Tensor]) -> Weights:
    """Learnt words as weights. rows: by word, [n, D]."""
    return Weights(
        {name: value.detach().cpu().contiguous() for name, value in rows.items()}, kind="rows", target="words",
        meta={"class": "words", "config": {}, "words": {name: len(value) for name, value in rows.items()}},
    )  # fmt: skip


@contextmanager
def worded(encoder: Any, rows: Mapping[str, Tensor]) -> Iterator[Any]:
    """A realised text encoder with words, for as long as the block runs; gradients reach the rows.

    rows: by word, [n, D] floats.
    Raises: UserError: see `LearntWords.apply`.
    """
    import torch

    table = _table(encoder)
    for word, value in rows.items():
        if value.ndim != 2 or value.shape[1] != table.embedding_dim:
            wanted, got = f"[n, {table.embedding_dim}]", list(value.shape)
            raise UserError(f"the learnt word {word!r} is {got}, and this text encoder wants {wanted}")
    made = copy.copy(encoder)
    made.tokenizer = WordTokenizer(encoder.tokenizer, {word: len(value) for word, value in rows.items()})
    first, added = made.tokenizer.first, torch.cat(list(rows.values()))
    asked: list[Tensor] = []

    def before(
        module: Any, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        ids = named["input_ids"]
        asked.append(ids)
        # The network sees a token that it knows: some take the highest number for the end of the text.
        return given, {**named, "input_ids": ids.masked_fill(ids >= first, 0)}

    def after(module: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        ids = asked.pop()
        new = ids >= first
        if not new.any():
            return out
        own = added.to(out)[(ids - first).clamp(min=0)]
        return torch.where(new[..., None], own, out)

    # Of several such patches, the last one's words have the highest numbers: it looks first, and puts in last.
    handles = [
        encoder.module.register_forward_pre_hook(before, prepend=True, with_kwargs=True),
        table.register_forward_hook(after),
    ]
    try:
        yield made
    finally:
        for handle in handles:
            handle.remove()


class WordTokenizer:
    """A tokenizer that knows more words, each as its own tokens; all else is the tokenizer's.

    base: without any of these words. words: how many tokens each is, those of a WordTokenizer that it was made of
    among them. first: number of the first new token; at least the number of rows that the table of tokens has.
    """

    def __init__(self, tokenizer: Any, words: Mapping[str, int]) -> None:
        from transformers import AddedToken

        known: dict[str, int] = tokenizer.words if isinstance(tokenizer, WordTokenizer) else {}
        self.base: Any = tokenizer.base if isinstance(tokenizer, WordTokenizer) else tokenizer
        vocabulary = self.base.get_vocab()
        for word in words:
            if word in known or word.lower() in vocabulary or f"{word.lower()}</w>" in vocabulary:
                raise UserError(
                    f"{word!r} is a word of this text encoder already; call the new one otherwise, such as "
                    f"<{word}>"
                )
        self.words: dict[str, int] = {**known, **words}
        self.first = len(self.base) + sum(known.values())
        self.inner = copy.deepcopy(self.base)
        self.spelt = {word: [f"<|{word}:{i}|>" for i in range(count)] for word, count in self.words.items()}
        for pieces in self.spelt.values():
            self.inner.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
        # The longest first, and all in one pass: a word may hold another.
        longest = sorted(self.words, key=len, reverse=True)
        self._pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in longest))

    def __call__(self, text: str | list[str], *given: Any, **options: Any) -> Any:
        texts = self._spelt(text) if isinstance(text, str) else [self._spelt(one) for one in text]
        return self.inner(texts, *given, **options)

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def _spelt(self, text: str) -> str:
        return self._pattern.sub(lambda found: " ".join(self.spelt[found.group()]), text)


def _table(encoder: Any) -> Any:
    """The module that looks tokens up. Raises: UserError: an encoder without one."""
    module: Any = getattr(encoder, "module", None)
    if not hasattr(encoder, "tokenizer") or not hasattr(module, "get_input_embeddings"):
        raise UserError("this text encoder cannot be taught words: wanted one of CLIP's kind")
    return module.get_input_embeddings()
