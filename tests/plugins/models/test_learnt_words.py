"""Learnt words: rows that are added and nothing else, files of the ecosystem, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file

from mezzotint import Source, UserError, Weights
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.learnt_words import export_words, learnt_words, pack_words, read_words, worded

PROMPTS = ["a red circle on the left", "a large blue square"]


@pytest.fixture
def encoder(tiny, ctx):
    return ctx.realise(checkpoint(tiny.source).text_encoder)


def rows(count: int = 1, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def put_on(tiny, ctx, model, weights):
    (patch,) = learnt_words(checkpoint(tiny.source).text_encoder, weights).patches
    return patch.apply(model, ctx)


def source_at(path) -> Source:
    return Source(str(path), str(path), "0" * 64)


def test_prompts_without_the_word_are_encoded_in_the_same_bits_and_the_table_stays(tiny, ctx, encoder):
    table = encoder.module.get_input_embeddings().weight.detach().clone()
    before = encoder.condition(PROMPTS)
    with put_on(tiny, ctx, encoder, pack_words({"<thing>": rows(2)})) as taught:
        inside = taught.condition(PROMPTS)
        spoken = taught.condition(["a red <thing> on the left"])
    assert torch.equal(inside.context, before.context) and torch.equal(inside.pooled, before.pooled)
    assert torch.equal(encoder.module.get_input_embeddings().weight, table)
    assert not torch.allclose(spoken.context, before.context[:1])
    assert torch.equal(encoder.condition(PROMPTS).context, before.context)


def test_a_word_with_another_words_row_reads_as_that_word(tiny, ctx, encoder):
    table = encoder.module.get_input_embeddings().weight.detach()
    (number,) = encoder.tokenizer("circle", add_special_tokens=False).input_ids
    with put_on(tiny, ctx, encoder, pack_words({"<thing>": table[[number]]})) as taught:
        made = taught.condition(["a red <thing> on the left"])
    wanted = encoder.condition(["a red circle on the left"])
    assert torch.equal(made.context, wanted.context) and torch.equal(made.pooled, wanted.pooled)


def test_a_word_of_n_vectors_is_n_tokens_and_gradients_reach_only_its_rows(encoder):
    own = rows(3).requires_grad_()
    with worded(encoder, {"<thing>": own}) as taught:
        plain = taught.tokens(["a <thing>"])[0]
        taught.condition(["a <thing>"]).context.square().sum().backward()
    assert int((plain >= taught.tokenizer.first).sum()) == 3
    assert (own.grad.abs().sum(1) > 0).all()
    assert encoder.module.get_input_embeddings().weight.grad is None


def test_words_stack_in_one_patch_or_several_and_one_may_hold_another(tiny, ctx, encoder):
    one, other = rows(1, seed=1), rows(2, seed=2)
    prompt = ["a thing-x and a <thing-x>, red thing-x"]
    with put_on(tiny, ctx, encoder, pack_words({"thing-x": one, "<thing-x>": other})) as taught:
        together = taught.condition(prompt)
    with (
        put_on(tiny, ctx, encoder, pack_words({"thing-x": one})) as first,
        put_on(tiny, ctx, first, pack_words({"<thing-x>": other})) as second,
    ):
        apart, within = second.condition(prompt), second.condition(["a thing-x"])
    with put_on(tiny, ctx, encoder, pack_words({"thing-x": one})) as alone:
        wanted = alone.condition(["a thing-x"])
    assert torch.equal(apart.context, together.context)
    assert torch.equal(within.context, wanted.context)


def test_a_word_beside_punctuation_is_read_and_as_a_part_of_a_longer_word_is_not(encoder):
    with worded(encoder, {"<t>": rows()}) as taught:
        first = taught.tokenizer.first
        counts = [
            int((taught.tokens([text]) >= first).sum()) for text in ("a <t>, red", "(<t>)", "a red<t>", "circle")
        ]
    assert counts == [1, 1, 0, 0]


@pytest.mark.parametrize("word", ["circle", "Circle", "red"])
def test_a_word_that_exists_is_refused(encoder, word):
    with pytest.raises(UserError, match=f"'{word}' is a word of this text encoder already.*<{word}>"):
        worded(encoder, {word: rows()}).__enter__()


def test_a_word_that_was_learnt_before_is_refused(tiny, ctx, encoder):
    with put_on(tiny, ctx, encoder, pack_words({"<t>": rows()})) as taught:
        with pytest.raises(UserError, match="'<t>' is a word of this text encoder already"):
            worded(taught, {"<t>": rows()}).__enter__()


def test_rows_of_another_width_are_refused(encoder):
    with pytest.raises(UserError, match=r"'<t>' is \[1, 768\], and this text encoder wants \[n, 64\]"):
        worded(encoder, {"<t>": rows(width=768)}).__enter__()


def test_our_file_loads_in_diffusers_and_encodes_the_same(tiny, ctx, encoder, tmp_path):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    learnt = pack_words({"<thing>": rows(2)})
    made = export_words(learnt)
    path = tmp_path / "thing.safetensors"
    save_file(dict(made.tensors), path)
    pipe = StableDiffusionPipeline(
        vae=tiny.vae, unet=tiny.unet, text_encoder=copy.deepcopy(encoder.module),
        tokenizer=copy.deepcopy(encoder.tokenizer), scheduler=DDIMScheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.load_textual_inversion(str(path), token="<thing>")
    theirs, _ = pipe.encode_prompt("a red <thing> on the left", "cpu", 1, False)
    with put_on(tiny, ctx, encoder, learnt) as taught:
        ours = taught.condition(["a red <thing> on the left"]).context
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("tensors", "word", "called"),
    [
        ({"<cat>": rows(2)}, "", "<cat>"),
        ({"emb_params": rows(2)}, "", "learnt"),
        ({"emb_params": rows(2)}, "<mine>", "<mine>"),
        ({"<cat>": rows(1)[0]}, "", "<cat>"),
    ],
    ids=["diffusers", "a1111", "named", "flat"],
)
def test_embedding_files_are_read(tmp_path, tensors, word, called):
    path = tmp_path / "learnt.safetensors"
    save_file(tensors, path)
    made = read_words(source_at(path), word=word)
    [(name, value)] = made.tensors.items()
    [wanted] = tensors.values()
    assert name == called and made.kind == "rows"
    assert torch.equal(value, wanted.reshape(-1, 64))


def test_what_is_exported_comes_back_the_same(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(dict(export_words(pack_words({"<cat>": rows(3)})).tensors), path)
    assert torch.equal(read_words(source_at(path)).tensors["<cat>"], rows(3))


def test_a_pickle_is_refused(tmp_path):
    path = tmp_path / "learnt.pt"
    torch.save({"string_to_param": {"*": rows()}}, path)
    with pytest.raises(UserError, match="pickle"):
        read_words(source_at(path))


@pytest.mark.parametrize(
    "tensors", [{"a": rows(), "b": rows()}, {"a": torch.zeros(2, 2, 2)}, {"a": torch.zeros(0, 8)}]
)
def test_a_file_without_one_embedding_is_refused(tmp_path, tensors):
    path = tmp_path / "learnt.safetensors"
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"wanted one embedding \[n, D\]"):
        read_words(source_at(path))


def test_weights_without_words_are_refused(tiny):
    with pytest.raises(UserError, match="words"):
        learnt_words(checkpoint(tiny.source).text_encoder, Weights({}, meta={"class": "x", "config": {}}))
