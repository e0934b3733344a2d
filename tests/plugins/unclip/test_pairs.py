"""Pairs of embeddings, and the priors trained on them by the trainer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mezzotint import Dataset, UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_training.train_node import train
from mezzotint_unclip.autoregressive_prior import AutoregressivePrior
from mezzotint_unclip.diffusion_prior import DiffusionPrior
from mezzotint_unclip.pairs import Pairs, pairs
from mezzotint_unclip.prior_nodes import prior
from mezzotint_unclip.prior_objectives import autoregressive_objective, diffusion_objective
from mezzotint_unclip.prior_tasks import AutoregressiveTask, DiffusionTask

sys.path.insert(0, str(Path(__file__).parent))
from stand_ins import EMBEDDING, LENGTH, LOADERS, WORDS, Pictures, Words, image_encoder, made_pairs, text_encoder

SCENES = Dataset(
    reader="smallworld.scenes", config={"seed": 0, "things": 1, "split": "train", "unnamed": 0.0}, length=30
)
SMALL = {"width": 16, "layers": 1, "heads": 2}
QUICK = {"steps": 4, "batch": 16, "report_every": 2, "validate_every": 2, "optimiser": "adamw"}


def context():
    return fake_context(loaders={**LOADERS, "tests.bare": lambda dataset, ctx: [{"image": np.zeros((8, 8, 3))}]})


def sizes(components=None):
    found = {"embedding": EMBEDDING, "text": WORDS, "length": LENGTH, **SMALL}
    return found if components is None else {**found, "components": components, "buckets": 6, "similarities": 4}


def test_pairs_are_the_encoders_own_embeddings_in_the_data_set_s_order():
    (made,) = check_node(
        pairs, ctx=context(), dataset=SCENES, image_encoder=image_encoder(), text_encoder=text_encoder(), count=5
    ).values()
    reader, items = Pairs(made), context().open_dataset(SCENES)
    assert len(reader) == made.length == 5
    for index in range(5):
        pixels = torch.from_numpy(np.array(items[index]["image"]))[None].float() / 255
        told = Words().condition([items[index]["caption"]])
        assert torch.allclose(reader[index]["image_embedding"], Pictures().embed(pixels)[0], atol=1e-6)
        assert torch.equal(reader[index]["text_embedding"], told.pooled[0])
        assert torch.allclose(reader[index]["context"].float(), told.context[0], atol=2e-3)
    assert torch.equal(reader.null[1], Words().condition([""]).pooled)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 31}, "31 pairs wanted, the data set has 30"),
        ({"text_encoder": text_encoder(width=6)}, "8 wide, the captions' 6: .* not of one CLIP"),
        ({"dataset": Dataset("tests.bare", {}, 1)}, "an image and a caption, item 0 has image"),
    ],
)
def test_what_makes_no_pairs_is_refused(given, message):
    inputs = {"dataset": SCENES, "image_encoder": image_encoder(), "text_encoder": text_encoder(), **given}
    count = inputs.pop("count", 1)
    with pytest.raises(UserError, match=message):
        pairs(context(), **inputs, count=count)


@pytest.mark.parametrize(
    "objective",
    [diffusion_objective(**SMALL), autoregressive_objective(components=4, buckets=6, similarities=4, **SMALL)],
    ids=["diffusion", "autoregressive"],
)
def test_each_prior_trains_by_the_trainer_and_its_weights_are_whole(objective):
    done = train(context(), objective, made_pairs(60), **QUICK)
    assert {"loss", "cosine", "cosine_text"} <= set(done.report.data["validation"][-1])
    assert done.weights.target.startswith("unclip.")
    if done.weights.target == "unclip.diffusion_prior":
        assert prior(done.weights).channels == EMBEDDING
        assert abs(done.report.data["validation"][-1]["mse_mean"] - 1) < 0.3


def test_priors_refuse_a_data_set_of_pictures_and_a_tiny_one():
    for objective in (diffusion_objective(**SMALL), autoregressive_objective(components=4, **SMALL)):
        with pytest.raises(UserError, match=r"the data set of unclip\.pairs"):
            train(context(), objective, SCENES, **QUICK)
        with pytest.raises(UserError, match="at least 20 pairs"):
            train(context(), objective, made_pairs(19), **QUICK)
    with pytest.raises(UserError, match="multiple of the heads"):
        diffusion_objective(width=15, heads=2)


def task(kind, drop=0.1, count=200):
    reader = Pairs(made_pairs(count))
    if kind is DiffusionTask:
        return DiffusionTask(DiffusionPrior(**sizes()), reader, 8, 0, drop)
    model = AutoregressivePrior(**sizes(components=4))
    model.fit(reader.image, reader.text)
    return AutoregressiveTask(model, reader, 8, 0, drop)


@pytest.mark.parametrize("kind", [DiffusionTask, AutoregressiveTask])
def test_texts_are_dropped_sample_by_sample_and_whole(kind):
    made = task(kind, drop=0.3)
    dropped = made.chosen(20_000, torch.Generator().manual_seed(0))
    assert abs(dropped.float().mean().item() - 0.3) < 0.02
    batch = made.batch(0, 0)
    mixed = torch.tensor([True, False] * 4)
    context_, text_ = made.texts(batch, mixed)
    null_context, null_text = made.reader.null
    assert torch.equal(context_[mixed], null_context.expand(4, -1, -1)) and torch.equal(
        text_[mixed], null_text.expand(4, -1)
    )
    assert torch.equal(context_[~mixed], batch["context"][~mixed]) and torch.equal(
        text_[~mixed], batch["text"][~mixed]
    )


def test_a_dropped_text_has_no_known_similarity():
    made, asked = task(AutoregressiveTask), []
    made.model.similarity_in.register_forward_hook(lambda *found: asked.append(found[1][0].clone()))
    dropped = torch.tensor([True, False] * 4)
    made.errors(made.batch(0, 0), dropped)
    assert (asked[0][dropped] == made.model.unknown).all() and (asked[0][~dropped] < made.model.unknown).all()


def test_scaled_embeddings_have_a_variance_near_1():
    made = task(DiffusionTask)
    spread = made.reader.image * made.model.scale
    assert abs(spread.square().mean().item() - 1) < 1e-5


def test_an_exact_prior_has_no_error_and_guessing_nothing_has_an_error_of_1():
    made, batch = task(DiffusionTask), task(DiffusionTask).batch(0, 0)
    kept, numbers = torch.zeros(8, dtype=torch.bool), torch.Generator().manual_seed(0)
    made.model.forward = lambda *given: batch["image"] * made.model.scale
    assert made.errors(batch, kept, numbers).abs().max() == 0
    made.model.forward = lambda *given: torch.zeros_like(batch["image"])
    assert torch.allclose(made.errors(batch, kept, numbers), torch.ones(8), atol=1e-5)


def test_each_batch_visits_the_whole_schedule_noisier_and_noisier():
    made, seen = task(DiffusionTask), []
    made.model.forward = lambda x, times, *rest: seen.append((x, times)) or x
    batch = made.batch(0, 0)
    made.errors(batch, torch.zeros(8, dtype=torch.bool), torch.Generator().manual_seed(0))
    ((x, times),) = seen
    assert times.diff().gt(0).all() and times[0] < 125 and times[-1] >= 875
    # What noise leaves of the embedding: alpha.
    alpha = (x * batch["image"] * made.model.scale).mean(-1)
    assert alpha[0] > 0.8 and alpha[-1] < 0.8


def test_an_untrained_prior_of_codes_is_at_the_entropy_of_guessing():
    made = task(AutoregressiveTask)
    torch.nn.init.zeros_(made.model.code_out.weight)
    torch.nn.init.zeros_(made.model.code_out.bias)
    loss, _ = made.loss(made.batch(0, 0), "prior", torch.Generator().manual_seed(0))
    assert abs(loss.item() - np.log(6)) < 1e-5


def test_held_out_pairs_are_never_in_a_batch():
    made = task(DiffusionTask)
    held = made.held_out()["image"]
    seen = torch.cat([made.batch(step, 0)["image"] for step in range(60)])
    assert len(held) == 20 and not (seen[:, None] == held[None]).all(-1).any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_a_prior_learns_a_rotation_from_texts_to_pictures(kind):
    objective = {
        "diffusion": lambda: diffusion_objective(width=32, layers=2, heads=2),
        "autoregressive": lambda: autoregressive_objective(
            components=EMBEDDING, buckets=16, similarities=4, width=32, layers=2, heads=2
        ),
    }[kind]()
    settings = {**QUICK, "steps": 400, "batch": 64, "validate_every": 400, "learning_rate": 3e-3}
    done = train(context(), objective, made_pairs(2000), **settings)
    figures = done.report.data["validation"][-1]
    assert figures["cosine"] > figures["cosine_text"] + 0.5
    assert figures["cosine"] > 0.7
