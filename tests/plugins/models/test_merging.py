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


def merged(tiny, ctx, concepts, prompts=("a {}",), **more):
    found = checkpoint(tiny.source)
    return merge_concepts(
        ctx, found.denoiser, found.text_encoder, concepts, captions=CAPTIONS, prompts=list(prompts), **more
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
    made = constrained(weight, usual, targets, wanted, ridge=1e-12)
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
    made = constrained(weight, usual, both, wanted, ridge=1e-12)
    assert objective(usual, made, weight) <= objective(usual, feasible, weight)


@pytest.mark.parametrize("ridge", [1e-8, 1e-2, 1.0])
def test_the_merge_solves_the_equations_of_its_multipliers(ridge):
    weight, features, answers = drawn(24, 16), drawn(40, 16, seed=1), drawn(40, 24, seed=4)
    targets, wanted = drawn(6, 16, seed=2), drawn(6, 24, seed=3)
    made = constrained(weight, features, targets, wanted, answers, ridge)
    # Lagrange: 2 (G + r I) W^T + C^T M = 2 (F^T B + r W0^T), C W^T = V, as one dense system.
    cost = ridge * features.square().sum(0).mean()
    metric = 2 * (features.T @ features + cost * torch.eye(16, dtype=torch.float64))
    system = torch.cat([torch.cat([metric, targets.T], 1), torch.cat([targets, torch.zeros(6, 6)], 1)])
    right = torch.cat([2 * (features.T @ answers + cost * weight.T), wanted])
    torch.testing.assert_close(made.T, torch.linalg.solve(system, right)[:16], rtol=0, atol=1e-9)


def test_features_that_hardly_differ_do_not_blow_the_matrix_up():
    base = drawn(60, 32, seed=1) * torch.logspace(0, -6, 32, dtype=torch.float64)
    weight, targets = drawn(8, 32), base[:3] + 1e-3 * drawn(3, 32, seed=2)
    wanted = targets @ (weight + 0.1 * drawn(8, 32, seed=3)).T
    made, steep = (constrained(weight, base, targets, wanted, ridge=ridge) for ridge in (1e-2, 1e-12))
    assert (targets @ made.T - wanted).abs().max() < 1e-6
    assert (made - weight).norm() < 3 and (steep - weight).norm() > 10 * (made - weight).norm()


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


def test_further_texts_are_answered_more_nearly_by_the_words_own_layers_and_the_prompt_still_exactly(tiny, ctx):
    one, two = concept("<one>", 20), concept("<two>", 40)
    text, words = "a large {} on the left", {}
    answers = {}
    for texts in ([], [text]):
        made = merged(tiny, ctx, [one, two], texts=texts, share=100.0)
        words = part_of(made, "words").tensors
        answers[len(texts)] = part_of(made, "tuned").tensors
    model = ctx.realise(checkpoint(tiny.source).text_encoder)
    with worded(model, words) as taught, torch.no_grad():
        said = [taught.condition([t.replace("{}", "<one>")]).context[0] for t in (text, "a {}")]
        begins = [
            taught.tokens([t.replace("{}", "<one>")])[0].ge(taught.tokenizer.first).int().argmax()
            for t in (text, "a {}")
        ]
    for name, own in part_of(one, "tuned").tensors.items():
        # The second prompt's word alone; the first text with its padding.
        off = {
            count: [
                (c[b:e] @ (changes[name] - own).T).norm()
                for c, b, e in zip(said, begins, (None, begins[1] + 1), strict=True)
            ]
            for count, changes in answers.items()
        }
        assert off[1][0] < 0.7 * off[0][0]
        assert off[1][1] < 1e-4 and off[0][1] < 1e-4


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


def test_a_further_text_without_a_place_for_the_word_is_refused(tiny, ctx):
    with pytest.raises(UserError, match=r'each of texts wants "{}"'):
        merged(tiny, ctx, [concept("<one>", 1)], texts=["a circle"])
