"""Concepts merged in closed form, and differences compressed: against the conditions that define both."""

from __future__ import annotations

import pytest
import torch

from mezzotint import UserError, Weights
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.learnt_words import pack_words, worded
from mezzotint_models.lora import changes
from mezzotint_models.merging import compress_tuned, constrained, merge_concepts
from mezzotint_models.networks import part_of

SITE = "mid_block.attentions.0.transformer_blocks.0.attn2"
CAPTIONS = ["a red circle", "a blue square on the left", "a large blue circle on the left", "the square"]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def concept(word: str, seed: int, names: tuple[str, ...] = ("to_k", "to_v")) -> Weights:
    tuned = {
        f"tuned/{SITE}.{name}.weight": 0.1 * drawn(64, 64, seed=seed + i).float() for i, name in enumerate(names)
    }
    meta = {"class": "differences", "config": {}, "tuned": {"of": "tiny"}}
    words = pack_words({word: drawn(1, 64, seed=seed + 9).float()})
    rows = {f"words/{name}": value for name, value in words.tensors.items()}
    parts = {
        "tuned": {"target": "differences", "meta": meta},
        "words": {"target": "words", "meta": dict(words.meta)},
    }
    return Weights({**tuned, **rows}, target="parts", meta={"parts": parts})


def merged(tiny, ctx, concepts, prompts=("a {}",)):
    found = checkpoint(tiny.source)
    return merge_concepts(
        ctx, found.denoiser, found.text_encoder, concepts, captions=CAPTIONS, prompts=list(prompts)
    )


def objective(usual: torch.Tensor, made: torch.Tensor, weight: torch.Tensor) -> float:
    return float((usual @ (made - weight).T).norm())


def test_the_merge_meets_every_target_and_no_other_matrix_that_does_is_nearer_on_the_captions():
    weight, usual, targets, wanted = (
        drawn(24, 16),
        drawn(200, 16, seed=1),
        drawn(6, 16, seed=2),
        drawn(6, 24, seed=3),
    )
    made = constrained(weight, usual, targets, wanted)
    assert (targets @ made.T - wanted).abs().max() < 1e-6
    free = torch.linalg.svd(targets)[2][6:]
    for seed in range(20):
        other = made + 0.1 * drawn(24, 10, seed=10 + seed) @ free
        assert (targets @ other.T - wanted).abs().max() < 1e-6
        assert objective(usual, made, weight) < objective(usual, other, weight)


def test_the_merge_is_no_worse_than_averaged_differences_that_are_made_to_meet_the_targets():
    weight, usual = drawn(24, 16), drawn(200, 16, seed=1)
    targets = [drawn(3, 16, seed=2), drawn(3, 16, seed=3)]
    tuned = [weight + 0.3 * drawn(24, 16, seed=4), weight + 0.3 * drawn(24, 16, seed=5)]
    wanted = torch.cat([c @ w.T for c, w in zip(targets, tuned, strict=True)])
    both = torch.cat(targets)
    mean = (tuned[0] + tuned[1]) / 2
    feasible = mean + (torch.linalg.pinv(both) @ (wanted - both @ mean.T)).T
    made = constrained(weight, usual, both, wanted)
    assert objective(usual, made, weight) <= objective(usual, feasible, weight)


def test_captions_of_fewer_tokens_than_the_width_still_give_one_solution():
    weight, targets, wanted = drawn(8, 16), drawn(2, 16, seed=2), drawn(2, 8, seed=3)
    made = constrained(weight, drawn(5, 16, seed=1), targets, wanted)
    assert (targets @ made.T - wanted).abs().max() < 1e-6


def test_targets_that_contradict_each_other_are_refused():
    one = drawn(1, 16)
    with pytest.raises(UserError, match="depend on each other"):
        constrained(drawn(8, 16), drawn(50, 16, seed=1), torch.cat([one, one]), drawn(2, 8, seed=3))


@pytest.mark.parametrize("count", [1, 2])
def test_merged_layers_answer_each_word_as_its_own_tuned_layers_do(tiny, ctx, count):
    concepts = [concept("<one>", 20), concept("<two>", 40)][:count]
    made = merged(tiny, ctx, concepts, ["a {}", "a {} on the left"])
    assert sorted(part_of(made, "tuned").tensors) == [f"{SITE}.to_k.weight", f"{SITE}.to_v.weight"]
    words = part_of(made, "words").tensors
    assert list(words) == ["<one>", "<two>"][:count]
    model = ctx.realise(checkpoint(tiny.source).text_encoder)
    for one, word in zip(concepts, words, strict=True):
        with worded(model, words) as taught, torch.no_grad():
            ids = taught.tokens([f"a {word} on the left"])[0].tolist()
            begin = next(i for i, number in enumerate(ids) if number >= taught.tokenizer.first)
            end = ids.index(taught.tokenizer.eos_token_id)
            context = taught.condition([f"a {word} on the left"]).context[0, begin : end + 1]
        for name, change in part_of(one, "tuned").tensors.items():
            weight = tiny.unet.get_parameter(name).detach()
            own, all_in_one = weight + change, weight + part_of(made, "tuned").tensors[name]
            torch.testing.assert_close(context @ all_in_one.T, context @ own.T, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("concepts", "prompts", "message"),
    [
        ([concept("<one>", 1), concept("<one>", 5)], ["a {}"], "two concepts have the word '<one>'"),
        ([concept("<one>", 1, ("to_q",))], ["a {}"], r"concept 0 changed .*attn2\.to_q\.weight too"),
        ([concept("<one>", 1)], ["a thing"], 'prompts wants "{}" where the word belongs'),
        ([pack_words({"<one>": torch.zeros(1, 64)})], ["a {}"], "concept 0: the weights have no 'tuned'"),
        ([], ["a {}"], "wanted at least one concept"),
    ],
    ids=["same_word", "other_layers", "no_place", "no_layers", "none"],
)
def test_what_cannot_be_merged_is_refused(tiny, ctx, concepts, prompts, message):
    with pytest.raises(UserError, match=message):
        merged(tiny, ctx, concepts, prompts)


def test_compression_that_keeps_all_is_exact_and_less_is_the_largest_singular_values():
    given = concept("<one>", 3)
    whole, less = (compress_tuned(given, keep=keep) for keep in (1.0, 0.6))
    tuned = part_of(given, "tuned").tensors
    for layer, change in changes(part_of(whole, "lora").tensors, "test").items():
        torch.testing.assert_close(change, tuned[f"{layer}.weight"], rtol=0, atol=1e-6)
    for layer, change in changes(part_of(less, "lora").tensors, "test").items():
        u, values, v = torch.linalg.svd(tuned[f"{layer}.weight"].double())
        rank = next(r for r in range(1, 65) if values[:r].sum() >= 0.6 * values.sum())
        wanted = (u[:, :rank] * values[:rank]) @ v[:rank]
        torch.testing.assert_close(change.double(), wanted, rtol=0, atol=1e-6)
    assert list(part_of(less, "words").tensors) == ["<one>"]


def test_compression_of_what_is_no_matrix_is_refused():
    given = Weights({"a.bias": torch.zeros(3)}, target="differences", meta={"class": "differences", "tuned": {}})
    with pytest.raises(UserError, match="wanted differences of matrices"):
        compress_tuned(given)
