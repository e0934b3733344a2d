"""A mixture of experts: each row by its own expert, and nothing else moved by a bit."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, NoiseLevel, UserError, Weights
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.experts import mixture_of_experts, route
from mezzotint_models.learnt_words import pack_words
from mezzotint_models.networks import part_of
from mezzotint_models.tuned import tuned

LEVEL = NoiseLevel(alpha=0.6, sigma=0.8, time=500.0)
BLOCK = "mid_block.attentions.0.transformer_blocks.0"
KNOWN = [
    "",
    "a red circle",
    "a blue square",
    "a blue circle on the left",
    "the large square",
    "a red square on the left",
]
WORDS = ("<one>", "<two>", "<three>")


def expert(
    number: int, layers: tuple[str, ...] = ("attn2.to_k.weight", "attn2.to_v.weight"), width: int = 64
) -> Weights:
    noise = torch.Generator().manual_seed(100 + number)
    own = {f"tuned/{BLOCK}.{name}": 0.2 * torch.randn(64, width, generator=noise) for name in layers}
    words = pack_words({WORDS[number]: 3 * torch.randn(2, 64, generator=noise)})
    meta = {"class": "differences", "config": {}, "tuned": {"of": "tiny"}}
    parts = {
        "tuned": {"target": "differences", "meta": meta},
        "words": {"target": "words", "meta": dict(words.meta)},
    }
    rows = {f"words/{name}": value for name, value in words.tensors.items()}
    return Weights({**own, **rows}, target="parts", meta={"parts": parts})


def mixed(tiny, ctx, experts, **given):
    found = checkpoint(tiny.source)
    settings = {"known": KNOWN, "prompts": ["a {}", "a {} on the left"], **given}
    return mixture_of_experts(ctx, found.denoiser, found.text_encoder, experts, **settings)


def encoded(tiny, ctx, made, texts) -> Conditioning:
    (patch,) = made.encoder.patches
    with patch.apply(ctx.realise(checkpoint(tiny.source).text_encoder), ctx) as taught, torch.no_grad():
        return taught.condition(texts)


def predicted(model, ctx, denoiser, x, told):
    (patch,) = denoiser.patches or (None,)
    if patch is None:
        return model.predict(x, LEVEL, told).combined()
    with patch.apply(model, ctx) as inside:
        return inside.predict(x, LEVEL, told).combined()


@pytest.fixture
def model(tiny, ctx):
    return ctx.realise(checkpoint(tiny.source).denoiser)


def test_each_text_is_sent_to_its_words_expert_and_others_to_none(tiny, ctx):
    texts = ["a large <one>", "a <two> on the left", "a blue circle", "the <three>", ""]
    made = mixed(tiny, ctx, [expert(k) for k in range(3)], tried=texts)
    assert [one["expert"] for one in made.routes.data["routes"]] == [0, 1, -1, 2, -1]


def test_a_row_is_what_its_expert_alone_would_make_whatever_the_others_in_the_batch(tiny, ctx, model):
    experts = [expert(0), expert(1)]
    made = mixed(tiny, ctx, experts)
    told = encoded(tiny, ctx, made, ["a <one>", "a red circle", "a <two>", ""])
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = predicted(model, ctx, made.denoiser, x, told)
    base = checkpoint(tiny.source).denoiser
    plain = predicted(model, ctx, base, x, told)
    each = [predicted(model, ctx, tuned(base, part_of(one, "tuned")), x, told) for one in experts]
    assert torch.equal(found[1], plain[1]) and torch.equal(found[3], plain[3])
    assert torch.equal(found[0], each[0][0]) and torch.equal(found[2], each[1][2])
    assert not torch.allclose(found[0], plain[0])
    assert torch.equal(predicted(model, ctx, base, x, told), plain)


def test_an_expert_that_is_added_changes_no_bit_of_what_goes_to_the_others(tiny, ctx, model):
    before = mixed(tiny, ctx, [expert(0), expert(1)])
    after = mixed(tiny, ctx, [expert(0), expert(1), expert(2)])
    texts = ["a <one> on the left", "a <two>", "a blue square"]
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    old, new = (
        predicted(model, ctx, made.denoiser, x, encoded(tiny, ctx, made, texts)) for made in (before, after)
    )
    assert torch.equal(new, old)
    assert torch.equal(after.denoiser.patches[0].prototypes[:2], before.denoiser.patches[0].prototypes)


def test_feed_forward_layers_may_be_experts_too(tiny, ctx, model):
    made = mixed(tiny, ctx, [expert(0, ("ff.net.2.weight",), width=256)])
    told = encoded(tiny, ctx, made, ["a <one>", "a red circle"])
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = predicted(model, ctx, checkpoint(tiny.source).denoiser, x, told)
    found = predicted(model, ctx, made.denoiser, x, told)
    assert torch.equal(found[1], plain[1]) and not torch.allclose(found[0], plain[0])


def test_a_route_does_not_depend_on_the_other_rows():
    noise = torch.Generator().manual_seed(0)
    context = torch.randn(9, 5, 16, generator=noise)
    prototypes = torch.randn(4, 16, generator=noise, dtype=torch.float64)
    prototypes = torch.nn.functional.normalize(prototypes, dim=-1)
    centre, metric = torch.zeros(16, dtype=torch.float64), torch.eye(16, dtype=torch.float64)
    which, near = route(context, prototypes, centre, metric, 0.2)
    for row in range(9):
        alone = route(context[[row]], prototypes, centre, metric, 0.2)
        assert torch.equal(alone[0], which[[row]]) and torch.equal(alone[1], near[[row]])
    cosines = (torch.nn.functional.normalize(context.double(), dim=-1) @ prototypes.T).amax(1)
    torch.testing.assert_close(near, cosines.max(-1).values)
    assert torch.equal(which, torch.where(cosines.max(-1).values >= 0.2, cosines.argmax(-1), -1))


@pytest.mark.parametrize(
    ("experts", "given", "message"),
    [
        ([], {}, "wanted at least one expert"),
        ([expert(0), expert(0)], {}, "two experts have the word '<one>'"),
        ([expert(0)], {"prompts": ["a thing"]}, 'wants "{}" where the word belongs'),
        ([expert(0, ("norm2.weight",), width=1)], {}, "expert 0 changes .*norm2, here a LayerNorm"),
        ([expert(0, width=32)], {}, r"expert 0 was tuned on another model: .*to_k\.weight is \[64, 32\]"),
        ([pack_words({"<one>": torch.zeros(1, 64)})], {}, "expert 0: the weights have no 'tuned'"),
    ],
    ids=["none", "same_word", "no_place", "not_linear", "other_model", "no_layers"],
)
def test_what_is_no_mixture_is_refused(tiny, ctx, experts, given, message):
    with pytest.raises(UserError, match=message):
        mixed(tiny, ctx, experts, **given)


def test_a_conditioning_without_a_text_is_refused(tiny, ctx, model):
    made = mixed(tiny, ctx, [expert(0)])
    with pytest.raises(UserError, match="reads the text's tokens"):
        predicted(model, ctx, made.denoiser, torch.zeros(1, 4, 8, 8), Conditioning())


def test_a_word_that_no_expert_has_is_the_denoisers_own_to_the_bit(tiny, ctx, model):
    made = mixed(tiny, ctx, [expert(0), expert(1)], tried=["a <three> on the left", "a <three>"])
    assert [one["expert"] for one in made.routes.data["routes"]] == [-1, -1]
    told = encoded(tiny, ctx, made, ["a <three> on the left"])
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = predicted(model, ctx, checkpoint(tiny.source).denoiser, x, told)
    assert torch.equal(predicted(model, ctx, made.denoiser, x, told), plain)


def test_a_text_with_the_words_of_two_experts_goes_to_one_of_them_and_reports_which(tiny, ctx, model):
    made = mixed(tiny, ctx, [expert(0), expert(1)], tried=["a <one> on the <two>"])
    (found,) = made.routes.data["routes"]
    assert found["expert"] in (0, 1) and found["nearness"] >= 0.5
    told = encoded(tiny, ctx, made, ["a <one> on the <two>"])
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = tuned(checkpoint(tiny.source).denoiser, part_of(expert(found["expert"]), "tuned"))
    assert torch.equal(predicted(model, ctx, made.denoiser, x, told), predicted(model, ctx, alone, x, told))


def test_a_word_within_another_ones_word_goes_to_its_own_expert(tiny, ctx):
    renamed = []
    for number, word in enumerate(("<cat>", "<cat>s")):
        made = expert(number)
        rows = {name.replace(WORDS[number], word): value for name, value in made.tensors.items()}
        renamed.append(Weights(rows, target="parts", meta=made.meta))
    made = mixed(tiny, ctx, renamed, tried=["a <cat>", "a <cat>s"])
    assert [one["expert"] for one in made.routes.data["routes"]] == [0, 1]
