"""Tuning some layers of a denoiser, and the conditioners that learn along: what moves, what starts where."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mezzotint import Dataset, UserError
from mezzotint.testing import fake_context
from mezzotint_models import build_network, part_of
from mezzotint_models.denoiser import denoiser
from mezzotint_models.label_networks import LayoutEncoder
from mezzotint_models.tuned import tuned
from mezzotint_training.label_conditioners import Layouts, condition_on_class_token, condition_on_layout
from mezzotint_training.train_node import train
from mezzotint_training.tuning import tune

sys.path.insert(0, str(Path(__file__).parent))
from scenes import text_unet

pytestmark = pytest.mark.usefixtures("quick_charts")
DATA = Dataset("tests.scenes", {}, 12)
SMALL = {"steps": 2, "batch": 4, "report_every": 1, "warm_up": 0, "cool_down": 0.0, "ema": 0.0}
BOX = {"what": "red circle", "box": [0.1, 0.1, 0.6, 0.5]}


class Scenes:
    """Items with a label and boxes; 8x8."""

    label_names = ("dark", "bright")

    def __init__(self, dataset=None, ctx=None, length=12, **without):
        self.length, self.without = length, without

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        item = {
            "image": np.full((8, 8, 3), 200 * (index % 2), np.uint8),
            "label": index % 2,
            "boxes": [BOX, {**BOX, "what": "ring"}][: 1 + index % 2],
        }
        return {key: value for key, value in item.items() if key not in self.without}


def context():
    return fake_context(loaders={"tests.scenes": Scenes})


def layouts(**more):
    return condition_on_layout(width=16, side=5, layers=1, heads=2, **more)


def test_only_the_named_layers_and_the_conditioner_move_and_the_differences_are_theirs():
    unet, weights = text_unet()
    made = tune(denoiser(weights), layouts(), layers=["attn2"])
    trained = train(context(), made, DATA, **SMALL)
    changes = part_of(trained.weights, "tuned").tensors
    wanted = {name for name, _ in unet.named_parameters() if "attn2" in name}
    assert set(changes) == wanted
    assert all(change.abs().max() > 0 for name, change in changes.items() if "to_out" in name or "to_v" in name)
    encoder = build_network(part_of(trained.weights, "layout"))
    assert isinstance(encoder, LayoutEncoder)
    assert encoder.grid.names == ("red circle", "ring")


def test_the_tuned_denoiser_is_the_one_that_was_trained():
    unet, weights = text_unet()
    made = tune(denoiser(weights), condition_on_class_token(width=16), layers=["attn2", "norm"])
    task = made.open(context(), Scenes(), 0, 4)
    with torch.no_grad():
        for parameter in task.unet.network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    changes = task.weights()["tuned"]
    model = context().realise(denoiser(weights))
    (patch,) = tuned(denoiser(weights), changes).patches
    with patch.apply(model, context()) as put_on:
        for name, parameter in put_on.module.named_parameters():
            assert torch.allclose(parameter, task.unet.network.get_parameter(name), atol=1e-6)
    assert all(torch.equal(p, unet.get_parameter(n)) for n, p in model.module.named_parameters())


def test_norms_behind_layers_that_are_held_still_can_be_tuned():
    made = tune(denoiser(text_unet()[1]), layouts(), layers=["resnets.0.norm1"])
    trained = train(context(), made, DATA, **SMALL)
    assert all(change.abs().max() > 0 for change in part_of(trained.weights, "tuned").tensors.values())


def test_levels_below_the_first_are_not_trained_at():
    task = tune(denoiser(text_unet()[1]), layouts(), from_level=0.4).open(context(), Scenes(), 0, 4)
    times = task.times(1000, torch.Generator().manual_seed(0))
    assert times.min() >= 400 and times.max() <= 999
    assert times.float().mean().item() == pytest.approx(700, abs=5)


def test_layers_that_are_not_there_are_named():
    with pytest.raises(UserError, match=r"no name of the denoiser's tensors has 'attn3'.*attn2"):
        tune(denoiser(text_unet()[1]), layouts(), layers=["attn2", "attn3"]).open(context(), Scenes(), 0, 4)
    with pytest.raises(UserError, match="got one with patches"):
        tune(patched(), layouts())


def patched():
    from mezzotint import Patch

    return denoiser(text_unet()[1]).patched(Patch())


def test_a_dropped_layout_is_that_of_no_objects():
    torch.manual_seed(0)
    encoder = LayoutEncoder(["red circle", "ring"], side=5, objects=2, width=16, layers=1, heads=2)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    told = Layouts(encoder)
    rows = told.read([{"boxes": [BOX]}, {"boxes": []}])
    found = told(rows, torch.tensor([True, False])).context
    assert torch.equal(found[0], found[1])
    kept = told(rows, torch.tensor([False, False])).context
    assert not torch.allclose(kept[0], kept[1])


def test_data_without_what_is_to_be_told_is_refused():
    with pytest.raises(UserError, match="the items have no boxes"):
        layouts().open(context(), Scenes(boxes=True), 0)
    nameless = Scenes()
    nameless.label_names = ()
    with pytest.raises(UserError, match="the data set has no labels"):
        condition_on_class_token().open(context(), nameless, 0)
    with pytest.raises(UserError, match="at most 1 boxes, got 2"):
        told = layouts(objects=1).open(context(), Scenes(), 0)
        told.read([Scenes()[1]])


def test_tokens_begin_as_the_text_encoders_words():
    from mezzotint import Source
    from mezzotint_models.clip_text import ClipText

    class Words(ClipText):
        """Word n of a text is the vector of ones times the sum of its letters; 16 wide."""

        class tokenizer:
            eos_token_id = 0

        def __init__(self):
            pass

        def tokens(self, texts):
            ids = [sum(map(ord, word)) for word in texts[0].split()]
            return torch.tensor([[7, *ids, 0, 0, 0]])

        def encode(self, texts, clip_skip=0):
            return self.tokens(texts).float()[..., None].expand(-1, -1, 16), None

    from mezzotint import TextEncoder

    words = TextEncoder(Source("words", "", ""), "tests.words")
    ctx = fake_context(loaders={"tests.scenes": Scenes, "tests.words": lambda *_: Words()})
    table = condition_on_class_token(words, width=16).open(ctx, Scenes(), 0).module.embedding.weight
    assert table[:, 0].tolist() == [sum(map(ord, "dark")), sum(map(ord, "bright")), 0.0]
    more = condition_on_class_token(words, width=16, tokens=3).open(ctx, Scenes(), 0)
    found = more(more.read([Scenes()[1]]), torch.tensor([False])).context
    assert found.shape == (1, 3, 16)
    assert found[0, :, 5].tolist() == [7.0, ord("a"), sum(map(ord, "bright"))]
    module = layouts(words=words).open(ctx, Scenes(), 0).module
    assert module.name_embedding.weight[:, 3].tolist() == [sum(map(ord, "circle")), sum(map(ord, "ring"))]
    with pytest.raises(UserError, match="16 wide, wanted 32: set width"):
        condition_on_class_token(words, width=32).open(ctx, Scenes(), 0)
