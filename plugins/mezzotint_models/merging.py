"""Concepts that were learnt apart, merged in closed form: one set of keys and values that has the words of all.

Kumari et al. 2023, section 3.2: of all matrices that answer each concept's words as its own tuned one does, the
one that answers ordinary captions most nearly as the untuned one does. Few words can be met exactly, or the
matrices grow until they answer nothing else: so longer texts with the words are met as nearly as can be, beside
the captions, and a change costs something in every direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Context, Denoiser, TextEncoder, UserError, Weights, node
from mezzotint_models.learnt_words import pack_words, worded
from mezzotint_models.lora_files import pack_lora
from mezzotint_models.networks import join_parts, part_of, parts_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["compress_tuned", "constrained", "merge_concepts"]

_WHERE = "models.merge_concepts"
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=10_000)]
_NAMES = ("attn2.to_k.weight", "attn2.to_v.weight")
CLOSEST = 1e-6  # how nearly the words' answers must be met, beside the largest of them
CUT = 1e-10  # singular values of the words' features below that share of the largest count as none
RIDGE = 1e-2


@node("models.merge_concepts", device=True)
def merge_concepts(
    ctx: Context,
    denoiser: Denoiser,
    encoder: TextEncoder,
    concepts: list[Weights],
    *,
    captions: Texts,
    prompts: Texts,
    texts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=10_000)] = [],  # noqa: B006
    share: Annotated[float, Field(ge=0, le=1000)] = 1.0,
    ridge: Annotated[float, Field(gt=0, le=1)] = RIDGE,
) -> Weights:
    """Several concepts of Custom Diffusion in one, without training.

    The parts are "tuned" (differences, for models.tuned) and "words" (all of them, for models.learnt_words).

    denoiser, encoder: what each of them was learnt on, as they are.
    concepts: what training.personalise gave with a word and attn2.to_k and attn2.to_v as layers.
    captions: ordinary ones, whose keys and values are to stay near what they were; more tokens than the text
        encoder is wide are best.
    prompts: with "{}" for the word: its keys and values from there to the end of the text become what its own
        model has, exactly. One short text is best, and the rest in `texts`.
    texts: with "{}" too: from the word on, padding included, which in CLIP says what stands before it, keys and
        values become what its own model has as nearly as can be. None is the merge as it was published.
    share: what each concept's texts count beside the captions.
    ridge: what a change costs in directions that none of these texts has, as a share of the mean direction's cost;
        more keeps the changes smaller, and the texts less near.

    Raises: UserError: a concept with other layers or without a word, a word in two of them, a prompt or text
        without "{}", or more tokens to meet than the text encoder is wide.
    """
    import torch

    parts = [_concept(one, number) for number, one in enumerate(concepts)]
    rows = _words([words for _, words in parts])
    if not parts:
        raise UserError(f"{_WHERE}: wanted at least one concept, got an empty list")
    for name, given in (("prompts", prompts), ("texts", texts)):
        if any("{}" not in text for text in given):
            raise UserError(f'{_WHERE}: each of {name} wants "{{}}" where the word belongs, such as "a {{}}"')
    model = ctx.realise(encoder)
    module = ctx.realise(denoiser).module
    module = getattr(module, "network", module)
    there = dict(module.named_parameters())
    with torch.no_grad():
        usual = model.condition(list(captions)).context.double().flatten(0, 1).cpu()
        with worded(model, {word: value.to(ctx.device) for word, value in rows.items()}) as taught:
            targets = [_apart(_said(taught, prompts, words)).cpu() for _, words in parts]
            said = [_said(taught, texts, words, padding=True).cpu() for _, words in parts] if texts else []
    said = [one * (share * len(usual) / len(one)) ** 0.5 for one in said]
    names = sorted({name for tuned, _ in parts for name in tuned})
    made = {}
    for name in names:
        if name not in there:
            raise UserError(f"{_WHERE}: was tuned on another model: this one has no {name}")
        weight = there[name].detach().cpu().double()
        own = [weight + _change(tuned, name, weight) for tuned, _ in parts]
        wanted = torch.cat([c @ w.T for c, w in zip(targets, own, strict=True)])
        answers = torch.cat([usual @ weight.T, *(c @ w.T for c, w in zip(said, own, strict=bool(said)))])
        found = constrained(weight, torch.cat([usual, *said]), torch.cat(targets), wanted, answers, ridge)
        made[name] = (found - weight).float()
    record = {"of": denoiser.source.uri, "layers": list(_NAMES), "merged": [list(words) for _, words in parts]}
    meta = {"class": "differences", "config": {}, "tuned": record}
    return join_parts(
        {"tuned": Weights(made, kind="difference", target="differences", meta=meta), "words": pack_words(rows)}
    )


@node("models.compress_tuned")
def compress_tuned(
    weights: Weights,
    *,
    part: Annotated[str, Field(max_length=200)] = "",
    keep: Annotated[float, Field(gt=0, le=1)] = 0.6,
) -> Weights:
    """What tuning changed, as changes of low rank: the largest singular values of each layer's difference.

    The parts are "lora" (for models.lora), and "words" where the weights have them. Kumari et al. 2023, appendix.

    weights: with differences, as training.personalise or models.merge_concepts gives them.
    part: which part of those, where several are differences.
    keep: share of the sum of the singular values that is kept of each layer, at least; 1 keeps all.

    Raises: UserError: nothing that was tuned in there, or a difference that is no matrix.
    """
    import torch

    found: dict[str, Tensor] = {}
    tuned = part_of(weights, part or "tuned")
    for name, change in tuned.tensors.items():
        if change.ndim != 2 or not name.endswith(".weight"):
            raise UserError(
                f"models.compress_tuned: wanted differences of matrices, such as those of attn2.to_k, got {name} "
                f"{list(change.shape)}"
            )
        u, values, v = torch.linalg.svd(change.double(), full_matrices=False)
        rank = int((values.cumsum(0) < keep * values.sum()).sum()) + 1 if keep < 1 else len(values)
        root, layer = values[:rank].sqrt(), name.removesuffix(".weight")
        found[f"{layer}.lora_A.weight"] = (root[:, None] * v[:rank]).float()
        found[f"{layer}.lora_B.weight"] = (u[:, :rank] * root).float()
    of = (tuned.meta.get("tuned") or {}).get("of", "")
    parts = {"lora": pack_lora(found, of=of, kept=keep)}
    words = [one for one in parts_of(weights).values() if "words" in one.meta]
    return join_parts({**parts, "words": words[0]} if words else parts)


def constrained(
    weight: Tensor,
    features: Tensor,
    targets: Tensor,
    wanted: Tensor,
    answers: Tensor | None = None,
    ridge: float = RIDGE,
) -> Tensor:
    """The W [O, D] of least ||features W^T - answers||^2 + r ||W - weight||^2 with targets W^T = wanted, float64.

    Kumari et al. 2023, equation 4, for answers of None: those of `weight`.

    weight: [O, D]. features: [S, D]. targets: [N, D], no two alike. wanted: [N, O]. answers: [S, O].
    ridge: r, as a share of the mean diagonal of features^T features; a cost in directions that no feature has.
    Raises: UserError: targets that depend on each other.
    """
    import torch

    weight, features, targets, wanted = (value.double() for value in (weight, features, targets, wanted))
    gram = features.T @ features
    gram = gram + torch.eye(len(gram), dtype=gram.dtype) * (ridge * gram.diagonal().mean())
    root = torch.linalg.cholesky(gram)
    free = weight
    if answers is not None:
        pull = features.T @ (answers.double() - features @ weight.T)
        free = weight + torch.cholesky_solve(pull, root).T
    # Targets in the metric of the features: the least change is in their span there.
    bent = torch.linalg.solve_triangular(root, targets.T, upper=False)
    gap = wanted - targets @ free.T
    change = torch.linalg.lstsq(bent.T, gap, rcond=CUT, driver="gelsd").solution
    made: Tensor = free + torch.linalg.solve_triangular(root.T, change, upper=True).T
    miss = (targets @ made.T - wanted).abs().max()
    if miss > CLOSEST * max(1.0, float(wanted.abs().max())):
        raise UserError(
            f"{_WHERE}: no matrix answers all words as their own models do: {len(targets)} tokens of "
            f"{targets.shape[1]} numbers depend on each other; give fewer prompts (the rest as texts), or words "
            "that were learnt apart"
        )
    return made


def _concept(weights: Weights, number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(differences by name, rows by word). Raises: UserError: not Custom Diffusion's."""
    try:
        tuned, words = part_of(weights, "tuned"), part_of(weights, "words")
    except UserError as error:
        raise UserError(f"{_WHERE}: concept {number}: {error}") from error
    other = next((name for name in tuned.tensors if not name.endswith(_NAMES)), None)
    if other:
        raise UserError(
            f"{_WHERE}: concept {number} changed {other} too; only keys and values of cross-attention answer to a "
            "word alone: train with the layers attn2.to_k and attn2.to_v"
        )
    return dict(tuned.tensors), dict(words.tensors)


def _words(each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    rows: dict[str, Tensor] = {}
    for words in each:
        both = rows.keys() & words.keys()
        if both:
            raise UserError(
                f"{_WHERE}: two concepts have the word {min(both)!r}; learn one of them under another word"
            )
        rows.update(words)
    return rows


def _change(tuned: Mapping[str, Tensor], name: str, weight: Tensor) -> Tensor:
    """What a concept changed of a tensor, [O, D]; 0 where it left it."""
    change = tuned.get(name)
    if change is None:
        return weight * 0
    if change.shape != weight.shape:
        got, wanted = list(change.shape), list(weight.shape)
        raise UserError(f"{_WHERE}: was tuned on another model: {name} has shape {got}, here {wanted}")
    return change.cpu().double()


def _said(model: Any, texts: Sequence[str], words: Mapping[str, Tensor], padding: bool = False) -> Tensor:
    """[N, D] float64: of each text with each word, the tokens from the word to the end mark, or with padding.

    What stands before the word is read the same in all concepts.
    """
    import torch

    found: list[Tensor] = []
    spelt = model.tokenizer.spelt
    for word in words:
        marks = set(model.tokenizer.convert_tokens_to_ids(spelt[word]))
        said = [text.replace("{}", word) for text in texts]
        context, ids = model.condition(said).context.double(), model.tokens(said)
        for one, row in zip(context, ids.tolist(), strict=True):
            begin = next((place for place, number in enumerate(row) if number in marks), None)
            if begin is None:
                raise UserError(
                    f"{_WHERE}: the word {word!r} lies behind what the text encoder reads; shorten prompts and "
                    "texts"
                )
            found.append(one[begin:] if padding else one[begin : _end(model, torch.tensor(row)) + 1])
    return torch.cat(found)


def _apart(rows: Tensor) -> Tensor:
    """Those of [N, D] that are not like an earlier one."""
    import torch

    apart: list[Tensor] = []
    for one in rows:
        if not any(torch.allclose(one, other, rtol=0, atol=1e-5) for other in apart):
            apart.append(one)
    return torch.stack(apart)


def _end(model: Any, ids: Tensor) -> int:
    """Where the first end mark is; the last token if a long text lost it."""
    places = (ids == model.tokenizer.eos_token_id).nonzero()
    return int(places[0]) if len(places) else len(ids) - 1
