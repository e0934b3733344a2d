"""The two priors' networks on random numbers: causal, rows apart, guidance, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mezzotint import Conditioning, Latents, NoiseLevel, Sigmas, UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_models import build_network, pack_network
from mezzotint_sampling.guidance import ClassifierFreePredictor
from mezzotint_unclip.autoregressive_prior import AutoregressivePrior, _chosen
from mezzotint_unclip.code_sampling import sample_codes
from mezzotint_unclip.diffusion_prior import DiffusionPrior, PriorPredictor
from mezzotint_unclip.prior_nodes import SPACE, keep_nearest, prior
from mezzotint_unclip.schedule import SCHEDULE

sys.path.insert(0, str(Path(__file__).parent))
from stand_ins import EMBEDDING, LENGTH, WORDS, made_pairs, text, unit

SIZES = {"embedding": EMBEDDING, "text": WORDS, "length": LENGTH, "width": 16, "layers": 2, "heads": 2}
LEVEL = NoiseLevel(0.6, 0.8, 400.0)


def diffusion():
    """Random throughout, so that nothing is zero by its start."""
    model = DiffusionPrior(**SIZES).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def autoregressive(components=4, buckets=6):
    model = AutoregressivePrior(**SIZES, components=components, buckets=buckets, similarities=4).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pairs = made_pairs().config
    model.fit(pairs["image"], pairs["text"])
    return model


def packed(model):
    return pack_network(model, prior={"embedding": EMBEDDING})


def states_of(model, told, x):
    """What leaves the transformer's last layer, for every token."""
    kept = []
    handle = model.transformer.norm_out.register_forward_hook(lambda *found: kept.append(found[2]))
    model(x, torch.full((len(x),), 300.0), told.context, told.pooled)
    handle.remove()
    return kept[0]


@torch.no_grad()
def test_no_token_of_the_diffusion_prior_sees_a_later_one():
    model, told, x = diffusion(), text(), torch.randn(1, EMBEDDING)
    before = states_of(model, told, x)
    assert before.shape[1] == LENGTH + 4
    for place in range(LENGTH):
        context = told.context.clone()
        context[:, place] += 1
        after = states_of(model, told.replace(context=context), x)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place:], before[:, place:])
    after = states_of(model, told, x + 1)
    assert torch.equal(after[:, : LENGTH + 2], before[:, : LENGTH + 2])
    assert not torch.allclose(after[:, -1], before[:, -1])


@torch.no_grad()
def test_the_query_sees_words_text_time_and_the_noised_embedding():
    model, told, x, times = diffusion(), text(), torch.randn(1, EMBEDDING), torch.tensor([300.0])
    made = model(x, times, told.context, told.pooled)
    others = (
        model(x + 1, times, told.context, told.pooled), model(x, times + 200, told.context, told.pooled),
        model(x, times, told.context, -told.pooled), model(x, times, -told.context, told.pooled),
    )  # fmt: skip
    assert all(not torch.allclose(made, other, atol=1e-4) for other in others)


@torch.no_grad()
def test_the_logits_of_a_code_depend_on_earlier_codes_alone():
    model, told = autoregressive(components=5), text()
    codes, similarity = torch.randint(6, (1, 5)), torch.tensor([1])
    before = model(told.context, told.pooled, similarity, codes)
    assert before.shape == (1, 6, 6)
    for place in range(5):
        changed = codes.clone()
        changed[:, place] = (changed[:, place] + 1) % 6
        after = model(told.context, told.pooled, similarity, changed)
        assert torch.allclose(after[:, : place + 1], before[:, : place + 1], atol=1e-6)
        assert not torch.allclose(after[:, place + 1 :], before[:, place + 1 :], atol=1e-4)


@torch.no_grad()
def test_the_first_code_is_told_words_text_and_similarity():
    model, told, codes = autoregressive(), text(), torch.empty(1, 0, dtype=torch.long)
    similarity = torch.tensor([1])
    before = model(told.context, told.pooled, similarity, codes)
    others = (
        model(told.context, told.pooled, similarity + 1, codes),
        model(told.context, -told.pooled, similarity, codes),
        model(-told.context, told.pooled, similarity, codes),
    )  # fmt: skip
    assert all(not torch.allclose(before, other, atol=1e-4) for other in others)


@torch.no_grad()
@pytest.mark.parametrize("make", [diffusion, autoregressive])
def test_rows_of_a_batch_do_not_see_each_other(make):
    model, told, order = make(), text(4), torch.tensor([2, 0, 3, 1])
    if make is diffusion:
        x, times = torch.randn(4, EMBEDDING), torch.tensor([1.0, 200.0, 500.0, 999.0])
    else:
        x, times = torch.tensor([0, 1, 2, 4]), torch.randint(6, (4, 3))
    run = (lambda o: model(x[o], times[o], told.context[o], told.pooled[o])) if make is diffusion else (
        lambda o: model(told.context[o], told.pooled[o], x[o], times[o]))  # fmt: skip
    assert torch.allclose(run(order), run(torch.arange(4))[order], atol=1e-5)


@pytest.mark.parametrize("make", [diffusion, autoregressive])
def test_a_prior_is_built_again_from_its_weights_still_causal(make):
    model = make()
    again = build_network(packed(model))
    assert again.config == model.config
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    if make is diffusion:
        told, x = text(), torch.randn(1, EMBEDDING)
        assert torch.equal(states_of(again, told, x + 1)[:, :-2], states_of(again, told, x)[:, :-2])


@torch.no_grad()
def test_guidance_moves_along_the_difference_from_the_null_text():
    predictor, told, null = PriorPredictor(diffusion(), SCHEDULE), text(seed=1), text(seed=5)
    x = torch.randn(2, EMBEDDING, 1, 1)
    one, other = (predictor.predict(x, LEVEL, c).combined() for c in (told, null))
    guided = ClassifierFreePredictor(predictor, null, 3.0).predict(x, LEVEL, told).combined()
    assert torch.allclose(guided, other + 3 * (one - other), atol=1e-5)
    assert torch.equal(ClassifierFreePredictor(predictor, null, 1.0).predict(x, LEVEL, told).combined(), one)


@torch.no_grad()
def test_the_predictor_s_answer_is_a_clean_embedding_at_the_level_s_time():
    model, told = diffusion(), text()
    x = torch.randn(3, EMBEDDING, 1, 1)
    made = PriorPredictor(model, SCHEDULE).predict(x, LEVEL, told)
    assert made.kind == "x0"
    wanted = model(
        x[:, :, 0, 0], torch.full((3,), 400.0), told.context.expand(3, -1, -1), told.pooled.expand(3, -1)
    )
    assert torch.allclose(made.combined()[:, :, 0, 0], wanted)


@torch.no_grad()
def test_codes_are_drawn_from_the_model_s_own_distribution():
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    drawn = _chosen(logits.expand(10_000, -1), 1.0, uniform)
    assert torch.allclose(torch.bincount(drawn) / 10_000, logits[0].softmax(-1), atol=2e-4)
    sharper = _chosen(logits.expand(10_000, -1), 0.5, uniform)
    assert torch.allclose(torch.bincount(sharper, minlength=4) / 10_000, (2 * logits[0]).softmax(-1), atol=2e-4)
    assert _chosen(logits, 0, torch.tensor([0.0])).item() == 3


@torch.no_grad()
def test_written_embeddings_have_length_1_and_only_the_upper_half_of_similarities_is_asked_for():
    model, told, asked = autoregressive(), text(40), []
    handle = model.similarity_in.register_forward_hook(lambda *found: asked.append(found[1][0].clone()))
    made = model.sample(told.context, told.pooled, lambda place: torch.linspace(0, 1, 40))
    handle.remove()
    assert torch.allclose(made.norm(dim=-1), torch.ones(40), atol=1e-5)
    assert set(torch.cat(asked).tolist()) == {2, 3}


@torch.no_grad()
def test_guidance_0_of_the_codes_is_the_null_s_own_choice():
    model, told, null = autoregressive(), text(3), text(1, seed=7)
    same = [torch.full((3,), 0.4)] * 9
    asked = []
    handle = model.similarity_in.register_forward_hook(lambda *found: asked.append(found[1][0].clone()))
    made = model.sample(
        told.context, told.pooled, same.__getitem__, null=(null.context, null.pooled), guidance=0.0
    )
    handle.remove()
    assert torch.allclose(made, made[:1].expand_as(made), atol=1e-5)
    assert {model.unknown, 2} == set(torch.cat(asked).tolist())


def test_the_node_keeps_the_better_candidate_of_each_text():
    weights, told = packed(autoregressive()), text(3)
    one = [
        sample_codes(fake_context(), told, weights=weights, candidates=count, seed=3).pooled
        for count in (1, 4, 16)
    ]
    near = [(made * told.pooled).sum(-1) for made in one]
    assert (near[1] >= near[0] - 1e-6).all() and (near[2] >= near[1] - 1e-6).all()
    assert near[2].sum() > near[0].sum() + 0.1


def test_the_node_of_codes_keeps_what_nodes_promise():
    (made,) = check_node(
        sample_codes, text=text(2), negative=text(seed=8), weights=packed(autoregressive()), guidance=2.0, seed=1
    ).values()
    assert made.pooled.shape == (2, EMBEDDING)


def test_sample_i_of_a_batch_is_that_of_its_own_seed():
    weights, told = packed(autoregressive()), text(3)
    batch = sample_codes(fake_context(), told, weights=weights, seed=5).pooled
    second = Conditioning(context=told.context[1:2], pooled=told.pooled[1:2])
    alone = sample_codes(fake_context(), second, weights=weights, seed=6).pooled
    assert torch.allclose(batch[1:2], alone, atol=1e-5)


def as_latents(embeddings):
    return Latents(embeddings[:, :, None, None], space=SPACE, downscale=1)


def test_the_nearest_candidate_of_each_text_is_kept_and_brought_back_to_length_1():
    told, near = text(2), text(2).pooled + 0.1 * unit(2, EMBEDDING, seed=5)
    far = unit(2, EMBEDDING, seed=3)
    first, second = torch.stack((far[0], near[1])), torch.stack((near[0], far[1]))
    (made,) = check_node(
        keep_nearest, candidates=[as_latents(2.8 * first), as_latents(second)], text=told
    ).values()
    assert torch.allclose(made.pooled, torch.nn.functional.normalize(near, dim=-1), atol=1e-6)


def test_the_prior_is_a_denoiser_of_embeddings():
    (made,) = check_node(prior, weights=packed(diffusion())).values()
    assert (made.channels, made.sample_size, made.downscale, made.space) == (EMBEDDING, 1, 1, SPACE)
    assert made.schedule.prediction == "x0"
    predictor = fake_context().realise(made)
    assert isinstance(predictor, PriorPredictor)


def test_a_whole_run_of_the_sampler_ends_at_what_the_prior_predicts():
    from mezzotint import Noise
    from mezzotint_sampling.nodes import empty_latents, sigmas
    from mezzotint_sampling.sampler_node import sample

    made, told = prior(packed(diffusion())), text()
    start = empty_latents(made, width=1, height=1, batch=2)
    levels: Sigmas = sigmas(made, steps=4)
    found = sample(fake_context(), made, told, start, levels, Noise(seed=1), sampler="ddim")
    kept = keep_nearest([found], told).pooled
    assert kept.shape == (2, EMBEDDING) and torch.allclose(kept.norm(dim=-1), torch.ones(2), atol=1e-5)


WRONG = [
    (text(words=WORDS + 1), f"states of words {WORDS} wide, got {LENGTH} states {WORDS + 1} wide"),
    (text(length=LENGTH + 1), f"wanted {LENGTH} states"),
    (text(width=EMBEDDING + 1), f"{EMBEDDING} wide, got {EMBEDDING + 1}"),
    (Conditioning(pooled=unit(1, EMBEDDING)), "wanted a text .* got an image's embedding"),
    (Conditioning(), "wanted a text .* got neither"),
]


@pytest.mark.parametrize(("told", "message"), WRONG)
def test_both_priors_refuse_what_is_no_text_of_theirs(told, message):
    with pytest.raises(UserError, match=message):
        PriorPredictor(diffusion(), SCHEDULE).predict(torch.randn(1, EMBEDDING, 1, 1), LEVEL, told)
    with pytest.raises(UserError, match=message):
        sample_codes(fake_context(), told, weights=packed(autoregressive()))


def test_wrong_weights_and_missing_nulls_are_refused():
    with pytest.raises(UserError, match=r"wanted a diffusion prior, got a unclip\.autoregressive_prior"):
        prior(packed(autoregressive()))
    with pytest.raises(UserError, match="wanted an autoregressive prior"):
        sample_codes(fake_context(), text(), weights=packed(diffusion()))
    with pytest.raises(UserError, match="give the encoding of an empty text"):
        sample_codes(fake_context(), text(), weights=packed(autoregressive()), guidance=2.0)
    with pytest.raises(UserError, match="no conditioning"):
        PriorPredictor(diffusion(), SCHEDULE).predict(torch.randn(1, EMBEDDING, 1, 1), LEVEL, None)
    with pytest.raises(UserError, match="multiple of the heads"):
        DiffusionPrior(**{**SIZES, "heads": 3})


def test_latents_of_pictures_are_no_candidates():
    with pytest.raises(UserError, match="that a prior sampled"):
        keep_nearest([Latents(torch.zeros(1, 3, 8, 8), space="pixels", downscale=1)], text())
    three, two = as_latents(unit(3, EMBEDDING)), as_latents(unit(2, EMBEDDING))
    with pytest.raises(UserError, match="one text or 3, one a sample; got 2"):
        keep_nearest([three], text(2))
    with pytest.raises(UserError, match="runs of one batch"):
        keep_nearest([three, two], text())
    with pytest.raises(UserError, match="got an image's embedding"):
        keep_nearest([three], Conditioning(pooled=unit(1, EMBEDDING)))


def test_one_text_makes_a_batch_of_different_embeddings_and_several_texts_only_their_own():
    weights = packed(autoregressive())
    made = sample_codes(fake_context(), text(), weights=weights, batch=6).pooled
    assert made.shape == (6, EMBEDDING) and not torch.allclose(made, made[:1].expand_as(made), atol=1e-3)
    with pytest.raises(UserError, match="batch is 3, wanted one text or as many, got 2"):
        sample_codes(fake_context(), text(2), weights=weights, batch=3)
