"""The node that makes a denoiser edit by prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Context, Denoiser, TextEncoder, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint_attention.prompt_to_prompt import CrossEdit

__all__ = ["prompt_to_prompt"]

Part = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
WHERE = "attention.prompt_to_prompt"


@node("attention.prompt_to_prompt", device=True)
def prompt_to_prompt(
    ctx: Context,
    denoiser: Denoiser,
    encoder: TextEncoder,
    *,
    prompts: Annotated[list[str], Field(min_length=2, max_length=64)],
    kind: Literal["replace", "refine", "reweight"] = "refine",
    weights: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None,
    cross_until: Part = 0.8,
    self_until: Part = 0.4,
    until: dict[str, Part] | None = None,
    self_largest: Annotated[int, Field(ge=1, le=65536)] = 16,
    blend: Word | list[Word] | None = None,
    threshold: Part = 0.3,
    blend_from: Part = 0.2,
    blend_largest: Annotated[int, Field(ge=1, le=65536)] = 16,
) -> Denoiser:
    """Edit a picture by editing its prompt: attention goes where the source's prompt had it go (prompt-to-prompt).

    Source and edits are neighbours in a batch: sample i has prompt i % P and the noise of seed + i // P, see
    sampling.noise's `copies`. A prompt equal to the source's is no edit: it comes out as without this node, to the
    bit.

    denoiser: the model, guided or not; guidance's negative rows are left alone.
    encoder: of the checkpoint: it says which tokens spell which word.
    prompts: the source, and one or more edits of it, as they are encoded for the run.
    kind: replace: the same number of words, each in its predecessor's place. refine: words come in or go; those
        that both prompts have keep their places. reweight: the same prompt, with `weights`.
    weights: factors for words of the edits, of any kind of edit: above 1 for more of it, 0 for none.
    cross_until: the part of the run in which cross-attention is the source's.
    self_until: the part of the run in which self-attention is the source's.
    until: for single words of the edits, another `cross_until`.
    self_largest: leave out self-attention among more places than this along a side.
    blend: words of the source or of the edits, outside of which, by their attention, the source's picture stays.
    threshold: of that attention's maximum; more keeps more. 0.3 suits prompts of 77 tokens, 0.35 to 0.5 those
        of fewer. Nouns say best where: an adjective may look at the rim alone.
    blend_from: the part of the run after which samples are blended.
    blend_largest: the maps for the blend are the largest with no more places than this along a side.

    Raises: UserError: a word that no prompt has, prompts of another number of words for replace, other words for
        reweight, an encoder without a tokenizer; when it runs, a denoiser without such layers, a batch that is no
        multiple of the prompts, another injector that wants the same maps.
    Source: Hertz et al. 2022, "Prompt-to-Prompt Image Editing with Cross Attention Control".
    """
    from mezzotint_attention.injection import inject
    from mezzotint_attention.local_blend import LocalBlend
    from mezzotint_attention.prompt_to_prompt import SelfEdit
    from mezzotint_attention.sites import Sites

    read = _Prompts(ctx.realise(encoder), tuple(prompts))
    edit = _edit(read, kind, weights or {}, cross_until, until or {})
    made = denoiser
    if edit.end > 0:
        made = inject(made, edit)
    if self_until > 0:
        layers = Sites(kinds=("self",), largest=self_largest)
        made = inject(made, SelfEdit(sites=layers, end=self_until, edited=edit.edited))
    if blend:
        layers = Sites(kinds=("cross",), largest=blend_largest)
        words = read.marked([blend] if isinstance(blend, str) else blend, "blend")
        made = inject(made, LocalBlend(sites=layers, words=words, threshold=threshold, begin=blend_from))
    return made


@dataclass(frozen=True)
class _Prompts:
    """Prompts with the encoder that reads them. texts: the source and its edits."""

    encoder: Any
    texts: tuple[str, ...]

    def columns(self, text: str, word: str) -> list[int]:
        """Those of a word in one of the prompts; none if it is not there."""
        from mezzotint_attention.words import columns

        try:
            return columns(self.encoder, text, word, where=WHERE)
        except UserError:
            return []

    def marked(self, words: Sequence[str], what: str) -> Tensor:
        """[P, T], 1 at the words. Raises: UserError: a word that no prompt has."""
        import torch

        found = torch.zeros(len(self.texts), len(self.ids(self.texts[0])))
        for word in words:
            for i, there in enumerate(self.places(word, self.texts, what)):
                found[i, there] = 1
        return found

    def places(self, word: str, texts: Sequence[str], what: str) -> list[list[int]]:
        """The columns of a word in each of some prompts. Raises: UserError: none of them has it."""
        from mezzotint_attention.words import columns

        found = [self.columns(text, word) for text in texts]
        if not any(found):
            # With the nearest word of the last prompt, the edit, or why there is none.
            columns(self.encoder, texts[-1], word, where=f"{WHERE}, {what}")
        return found

    def ids(self, text: str) -> list[int]:
        from mezzotint_attention.words import token_ids

        return token_ids(self.encoder, text)

    def spelt(self, text: str) -> list[int]:
        """Token ids from the start mark to the end mark."""
        ids = self.ids(text)
        return ids[: min(len(self.encoder.tokenizer(text).input_ids), len(ids))]

    def words(self, text: str) -> list[list[int]]:
        """The columns of each word, in order. Raises: UserError: its words are not tokens by themselves."""
        each = [self.encoder.tokenizer(word, add_special_tokens=False).input_ids for word in text.split()]
        ids, together = self.ids(text), [number for word in each for number in word]
        start = next((i for i in (0, 1) if ids[i : i + len(together)] == together), None)
        if start is None:
            raise UserError(
                f"{WHERE}: the words of {text!r} cannot be told apart in its tokens, or it is too long; "
                "shorten it, or take the kind refine"
            )
        found, at = [], start
        for word in each:
            found.append(list(range(at, at + len(word))))
            at += len(word)
        return found


def _edit(
    read: _Prompts, kind: str, weights: Mapping[str, float], cross_until: float, until: Mapping[str, float]
) -> CrossEdit:
    """The edit of cross-attention that the prompts, weights and windows mean."""
    import torch

    from mezzotint_attention.prompt_to_prompt import CrossEdit

    source, *edits = read.texts
    length = len(read.ids(source))
    tables = [(torch.eye(length), torch.ones(length)), *(_table(read, kind, edit, length) for edit in edits)]
    weight = torch.ones(len(read.texts), length)
    ends = torch.full((len(read.texts), length), cross_until)
    for table, given, what in ((weight, weights, "weights"), (ends, until, "until")):
        for word, number in given.items():
            for i, there in enumerate(read.places(word, edits, what)):
                table[i + 1, there] = number
    edited = [
        read.ids(text) != read.ids(source) or bool((weight[i] != 1).any()) for i, text in enumerate(read.texts)
    ]
    return CrossEdit(
        end=float(ends[1:].max()),
        mapping=torch.stack([mapping for mapping, _ in tables]),
        share=torch.stack([share for _, share in tables]),
        weight=weight,
        until=ends,
        edited=tuple(edited),
    )


def _table(read: _Prompts, kind: str, edit: str, length: int) -> tuple[Tensor, Tensor]:
    """(mapping, share) of one edit. Raises: UserError: a kind that does not suit the two prompts."""
    import torch

    from mezzotint_attention.alignment import refined, replaced

    source = read.texts[0]
    if kind == "replace":
        try:
            return replaced(read.words(source), read.words(edit), length), torch.ones(length)
        except UserError as error:
            raise UserError(f"{WHERE}: {error}: {source!r} and {edit!r}") from error
    if kind == "refine":
        return refined(read.spelt(source), read.spelt(edit), length)
    if read.ids(source) != read.ids(edit):
        raise UserError(
            f"{WHERE}: reweight wants the same prompt twice, and weights for its words; got {source!r} and "
            f"{edit!r}. Take replace or refine, which take weights too"
        )
    return torch.eye(length), torch.ones(length)
