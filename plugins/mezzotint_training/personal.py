"""`training.personalise`: a few pictures of a subject teach a text-to-image model what it looks like.

One objective; what is trained makes the method. All of the denoiser, with pictures of the subject's class beside
its own, is DreamBooth (Ruiz et al. 2023). One new word alone is textual inversion (Gal et al. 2022). Keys and
values of cross-attention and a new word are Custom Diffusion (Kumari et al. 2023). A change of low rank is LoRA
(Hu et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mezzotint import Autoencoder, Denoiser, Image, TextEncoder, UserError, node
from mezzotint_models import TunedWeights
from mezzotint_training.objective import Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_training.personal_task import PersonalTask

__all__ = ["PersonalObjective", "personalise"]

_WHERE = "training.personalise"
Prompts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1000)]


@node("training.personalise")
def personalise(
    denoiser: Denoiser,
    encoder: TextEncoder,
    pictures: Image,
    autoencoder: Autoencoder | None = None,
    prior: Image | None = None,
    *,
    prompts: Prompts,
    prior_prompts: Prompts | None = None,
    layers: Annotated[list[str], Field(max_length=1000)] = [],  # noqa: B006
    rank: Annotated[int, Field(ge=0, le=1024)] = 0,
    word: Annotated[str, Field(max_length=100, pattern=r"^\S*$")] = "",
    vectors: Annotated[int, Field(ge=1, le=64)] = 1,
    begin: str = "",
    word_rate: Annotated[float, Field(gt=0, le=100_000)] = 1.0,
    prior_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0,
) -> Objective:
    """Teach a text-to-image model a subject from a few pictures; for training.train, without a data set.

    The weights have the parts "tuned" (differences, for models.tuned), or "lora" (for models.lora), and "words"
    (for models.learnt_words), whichever is trained.

    denoiser: to begin from, without guidance. With what models.tuned put on it, training goes on from there, and
        what it gives are the differences to that: they go on top of the earlier ones.
    encoder: whose texts it reads.
    pictures: of the subject, [N, H, W, 3], three to five; two at least.
    autoencoder: whose latents it denoises, if it does not work in pixels.
    prior: pictures of the subject's class, made by the denoiser before (prior preservation); null for none.
    prompts: what the pictures show: one for each, or templates that are drawn at random. "{}" stands for the word.
    prior_prompts: of the prior's pictures: one for each, or one for all.
    layers: tensors of the denoiser whose names contain one of these are trained: "" all, "attn2.to_k" keys of
        cross-attention; none trains the word alone.
    rank: 0 trains those tensors themselves; more trains a change of that rank to the layers, beside them.
    word: a new word to learn; empty learns none. It must not be one already.
    vectors: how many tokens the new word is.
    begin: the word that it begins as; its last token.
    word_rate: times the learning rate, at which the word learns. Layers want smaller steps than a word: what the
        word takes up leaves them nearer to what they were.
    prior_weight: of the prior's loss beside that of the pictures.

    Raises: UserError: nothing to train; one picture alone; other numbers of prompts; a new word that no prompt
        has. When training starts: layers that the denoiser does not have, a word that there is, pictures of
        another size.
    """
    _check(denoiser, pictures, prior, prompts, prior_prompts, layers, rank, word)
    return PersonalObjective(
        denoiser, encoder, pictures, autoencoder, prior, tuple(prompts), tuple(prior_prompts or ()), tuple(layers),
        rank, word, vectors, begin, word_rate, prior_weight,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class PersonalObjective(Objective):
    """Fields as in `training.personalise`."""

    denoiser: Denoiser
    encoder: TextEncoder
    pictures: Image
    autoencoder: Autoencoder | None
    prior: Image | None
    prompts: tuple[str, ...]
    prior_prompts: tuple[str, ...]
    layers: tuple[str, ...]
    rank: int
    word: str
    vectors: int
    begin: str
    word_rate: float
    prior_weight: float
    reads_dataset: ClassVar[bool] = False

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> PersonalTask:
        from mezzotint_training.personal_task import open_personal

        return open_personal(self, ctx, seed, batch)


def _check(
    denoiser: Denoiser,
    pictures: Image,
    prior: Image | None,
    prompts: list[str],
    prior_prompts: list[str] | None,
    layers: list[str],
    rank: int,
    word: str,
) -> None:
    count = pictures.data.shape[0]
    if any(not isinstance(patch, TunedWeights) for patch in denoiser.patches):
        raise UserError(
            f"{_WHERE}: wanted the denoiser as it is, or with models.tuned, got one with other patches: guide it "
            "afterwards"
        )
    if count < 2:
        raise UserError(
            f"{_WHERE}: one picture is learnt by heart, background and all; give three to five of the subject in "
            "different places (image.batch), or take graphs/editing/imagic.json, which is made for one"
        )
    if not layers and not word:
        raise UserError(f"{_WHERE}: nothing would be trained; give layers of the denoiser, a new word, or both")
    if rank and not layers:
        raise UserError(f"{_WHERE}: rank {rank} wants layers that the change is made to, such as attn")
    if word and not any("{}" in prompt or word in prompt for prompt in prompts):
        raise UserError(f'{_WHERE}: no prompt has the new word {word!r}; write it, or "{{}}", where it belongs')
    if not word and any("{}" in prompt for prompt in prompts):
        raise UserError(f'{_WHERE}: "{{}}" in a prompt stands for a new word, and there is none; give one as word')
    if (prior is None) != (not prior_prompts):
        raise UserError(f"{_WHERE}: prior pictures and their prompts belong together; got one without the other")
    if prior is not None and len(prior_prompts or ()) not in (1, prior.data.shape[0]):
        got = f"{len(prior_prompts or ())} prompts for {prior.data.shape[0]} prior pictures"
        raise UserError(f"{_WHERE}: {got}; give one for each, or one for all")
