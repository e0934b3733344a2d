"""What the decoder is told: the embedding in two places, nulls by sample, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mezzotint import Conditioning, Dataset, UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_models import build_network, pack_network
from mezzotint_unclip.conditioner import EmbeddingConditioner, condition_on_embedding
from mezzotint_unclip.decoder_condition import DecoderCondition
from mezzotint_unclip.decoder_nodes import condition_decoder

sys.path.insert(0, str(Path(__file__).parent))
from stand_ins import EMBEDDING, LENGTH, LOADERS, WORDS, image_encoder, text, text_encoder, unit

SCENES = Dataset(
    reader="smallworld.scenes", config={"seed": 0, "things": 1, "split": "train", "unnamed": 0.0}, length=12
)
ITEMS = [
    {"image": np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8), "caption": f"number {i}"}
    for i in range(6)
]


def network(tokens=3):
    model = DecoderCondition(embedding=EMBEDDING, context=WORDS, pooled=EMBEDDING, tokens=tokens)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def packed(model):
    return pack_network(model, image_condition={"embedding": EMBEDDING})


def opened(**settings):
    made = condition_on_embedding(image_encoder(), text_encoder(), **settings)
    assert isinstance(made, EmbeddingConditioner)
    return made.open(fake_context(loaders=LOADERS), ITEMS, 0)


@torch.no_grad()
def test_an_embedding_is_tokens_before_the_text_and_part_of_the_pooled_vector():
    model, told, image = network(), text(2), unit(2, EMBEDDING, seed=4)
    made = model(image, torch.zeros(2, dtype=torch.bool), told)
    assert made.context.shape == (2, 3 + LENGTH, WORDS)
    assert torch.equal(made.context[:, 3:], told.context)
    scaled = image * EMBEDDING**0.5
    assert torch.allclose(made.context[:, :3].flatten(1), model.to_tokens(scaled), atol=1e-6)
    assert torch.allclose(made.pooled - told.pooled, model.to_pooled(scaled), atol=1e-6)
    assert made.mask is None


@torch.no_grad()
def test_a_mask_of_the_text_counts_the_embedding_s_tokens():
    told = text(2).replace(mask=torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]))
    made = network()(unit(2, EMBEDDING), torch.zeros(2, dtype=torch.bool), told)
    assert torch.equal(made.mask, torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0]]))


@torch.no_grad()
def test_a_dropped_embedding_is_the_learnt_null_whatever_it_was():
    model, told = network(), text(2)
    dropped = torch.tensor([True, False])
    one, other = (model(unit(2, EMBEDDING, seed=seed), dropped, told) for seed in (1, 2))
    assert torch.equal(one.context[0], other.context[0]) and torch.equal(one.pooled[0], other.pooled[0])
    assert not torch.allclose(one.context[1], other.context[1])
    assert torch.allclose(one.context[0, :3].flatten(), model.to_tokens(model.null))


def test_a_new_decoder_adds_nothing_to_glide_s_pooled_vector():
    model, told = DecoderCondition(embedding=EMBEDDING, context=WORDS, pooled=EMBEDDING), text()
    with torch.no_grad():
        made = model(unit(1, EMBEDDING), torch.zeros(1, dtype=torch.bool), told)
    assert torch.equal(made.pooled, told.pooled)


def test_gradients_reach_the_null_and_both_projections():
    model = network()
    made = model(unit(2, EMBEDDING), torch.tensor([True, False]), text(2))
    (made.context.square().sum() + made.pooled.square().sum()).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


@torch.no_grad()
def test_embedding_and_text_are_dropped_each_by_itself_and_by_sample():
    conditions = opened(drop_image=0.1, drop_text=0.5)
    assert conditions.drops == (0.1, 0.5)
    rows = conditions.read(ITEMS[:4])
    dropped = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).bool()
    made, kept = conditions(rows, dropped), conditions(rows, torch.zeros(4, 2).bool())
    nulls = conditions(rows, torch.ones(4, 2).bool())
    tokens, words = (lambda c: c.context[:, :4]), (lambda c: c.context[:, 4:])
    for part, column in ((tokens, 0), (words, 1)):
        where = dropped[:, column]
        assert torch.equal(part(made)[where], part(nulls)[where])
        assert torch.equal(part(made)[~where], part(kept)[~where])
        assert torch.equal(part(nulls), part(nulls)[:1].expand_as(part(nulls)))
        assert not torch.allclose(part(kept)[0], part(nulls)[0])


@torch.no_grad()
def test_rows_are_read_item_by_item_and_do_not_see_each_other():
    conditions = opened()
    together = conditions.read(ITEMS)
    alone = [conditions.read([item]) for item in ITEMS]
    for name, value in together.items():
        assert torch.equal(value, torch.cat([one[name] for one in alone]))
    order, kept = torch.tensor([3, 1, 5, 0, 2, 4]), torch.zeros(6, 2).bool()
    made = conditions(together, kept)
    shuffled = conditions({name: value[order] for name, value in together.items()}, kept)
    assert torch.allclose(shuffled.context, made.context[order], atol=1e-5)
    assert torch.allclose(shuffled.pooled, made.pooled[order], atol=1e-5)


def test_what_ships_is_what_the_node_tells_the_decoder():
    conditions = opened()
    weights = conditions.parts()["image"]
    assert isinstance(build_network(weights), DecoderCondition)
    rows = conditions.read(ITEMS[:1])
    image, told = (
        Conditioning(pooled=rows["embedding"]),
        Conditioning(context=rows["context"], pooled=rows["pooled"]),
    )
    (made,) = check_node(condition_decoder, text=told, image=image, weights=weights).values()
    with torch.no_grad():
        wanted = conditions(rows, torch.zeros(1, 2).bool())
    assert torch.equal(made.context, wanted.context) and torch.equal(made.pooled, wanted.pooled)


def test_no_image_is_the_null_and_one_row_serves_a_whole_batch():
    weights, told = packed(network()), text()
    null = condition_decoder(fake_context(), told, weights=weights)
    with torch.no_grad():
        wanted = network_like(weights)(torch.zeros(1, EMBEDDING), torch.tensor([True]), told)
    assert torch.equal(null.context, wanted.context)
    three = condition_decoder(fake_context(), told, Conditioning(pooled=unit(3, EMBEDDING)), weights=weights)
    assert three.context.shape[0] == 3 and torch.equal(three.context[0, 3:], three.context[2, 3:])


def network_like(weights):
    return build_network(weights)


@pytest.mark.parametrize(
    ("told", "image", "message"),
    [
        (text(), text(), "image: wanted an image's embedding, got a text's"),
        (text(), Conditioning(pooled=unit(1, 6)), f"{EMBEDDING} wide, got 6"),
        (text(words=10), None, f"context is {WORDS} wide, got 10"),
        (text(width=6), None, f"pooled is {EMBEDDING} wide, got 6"),
        (Conditioning(pooled=unit(1, EMBEDDING)), None, "tokens and its pooled vector"),
        (text(2), Conditioning(pooled=unit(3, EMBEDDING)), "text has 2 rows, wanted 1 or 3"),
    ],
)
def test_what_the_decoder_cannot_be_told_is_refused(told, image, message):
    with pytest.raises(UserError, match=message):
        condition_decoder(fake_context(), told, image, packed(network()))


def test_items_without_caption_or_picture_are_refused():
    conditions = opened()
    with pytest.raises(UserError, match="the items have no caption, but image"):
        conditions.read([{"image": ITEMS[0]["image"]}])
    with pytest.raises(UserError, match="items with an image, got caption"):
        conditions.read([{"caption": "a red circle"}])


def test_the_decoder_s_loss_teaches_the_network_of_embeddings_too_and_both_ship_together():
    from mezzotint_models import parts_of
    from mezzotint_models.architecture import unet
    from mezzotint_training.diffusion_nodes import diffusion

    architecture = unet(
        size=8, patch=2, channels=[12, 24], head_channels=12, attention="joint", context=WORDS, pooled=EMBEDDING
    )
    objective = diffusion(architecture, condition_on_embedding(image_encoder(), text_encoder(), drop_image=0.5))
    task = objective.open(fake_context(loaders=LOADERS), ITEMS * 3, 0, 12)
    for parameter in task.modules["unet"].parameters():  # the exits are closed at first
        torch.nn.init.normal_(parameter, std=0.1)
    loss, _ = task.loss(task.batch(0, 0), "", torch.Generator().manual_seed(0))
    loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in task.modules["image"].parameters())
    shipped = task.weights()
    shipped = parts_of(shipped) if not isinstance(shipped, dict) else shipped
    assert set(shipped) == {"unet", "image"} and "image_condition" in shipped["image"].meta
