"""`training.diffusion`: what the network is shown and told, the loss of one that knows nothing, exact resume."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

import mezzotint_image
from mezzotint import Cancelled, Conditioning, Dataset, Image, Source, UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_models import build_network, part_of
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.text_encoders import text_encoder
from mezzotint_smallworld import SOURCE, resolve_source
from mezzotint_training import split
from mezzotint_training.diffusion_batches import hole_masks, small_levels
from mezzotint_training.diffusion_nodes import (
    condition_on_labels,
    condition_on_text,
    condition_on_trained_text,
    diffusion,
)
from mezzotint_training.diffusion_sheet import guided
from mezzotint_training.train_node import train

sys.path.insert(0, str(Path(__file__).parent))
from scenes import AUTOENCODER, ENCODER, PICTURES, SEEN, WORLD, context, generator, opened, tiny

TEXT = {"width": 8, "layers": 1, "heads": 2}
EVERYTHING = {"low_res": 4, "low_res_noise": 0.5, "inpaint": True, "weighting": "min_snr", "focus": 0.3}


pytestmark = pytest.mark.usefixtures("quick_charts")


def everything():
    made = tiny(
        attention="joint", context=8, pooled=8, learned_variance=True, low_res=True, level=True, extra=4, size=8,
    )  # fmt: skip
    return diffusion(made, condition_on_trained_text(**TEXT), **EVERYTHING)


def trained(objective, dataset=WORLD, ctx=None, init=None, **settings):
    settings = {"steps": 4, "batch": 4, "report_every": 2, **settings}
    return train(ctx or context(previews=False), objective, dataset, init, **settings)


def test_a_network_that_says_nothing_has_loss_one():
    task = opened(diffusion(tiny(prediction="eps")), batch=32)
    losses = [task.loss(task.batch(step, 0), "denoiser", generator(step))[0].item() for step in range(3)]
    assert all(loss == pytest.approx(1, abs=0.05) for loss in losses) and len(set(losses)) == 3


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_network_that_knows_the_answer_has_no_loss(prediction):
    task = opened(diffusion(tiny(prediction=prediction), weighting="p2"))
    batch, process = task.batch(0, 0), task.process

    def oracle(x, times, told):
        clean = batch["levels"].float() / 127.5 - 1
        alpha, sigma = process.at(times, x)
        noise = (x - alpha * clean) / sigma
        return {"eps": noise, "x0": clean, "v": alpha * noise - sigma * clean}[prediction]

    task.unet = oracle
    assert task.loss(batch, "denoiser", generator())[0].item() < 1e-6


def test_times_are_one_per_sample_and_spread_over_the_whole_range():
    task = opened(diffusion(tiny()))
    for seed in range(3):
        times = task.times(10, generator(seed))
        assert (times // 100).tolist() == list(range(10))
    focused = opened(diffusion(tiny(), focus=1.0))
    times = focused.times(10, generator())
    ratio = (focused.process.sigma / focused.process.alpha)[times]
    assert ratio.min() >= 1 and ratio.max() <= 8 and times.max() > times.min()


def test_conditions_are_dropped_by_the_sample():
    task = opened(diffusion(tiny(classes=3), condition_on_labels(classes=3), drop=0.3), batch=36)
    rows = task.batch(0, 0)
    dropped = task.dropped(2000, generator())
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.04)
    told = task.told(rows, dropped[:36], {})
    assert 0 < dropped[:36].sum() < 36
    assert torch.equal(told.label, torch.where(dropped[:36], 3, rows["label"]))
    for share in (0.0, 1.0):
        assert (task.dropped(50, generator(), share=share) == bool(share)).all()


def test_parts_of_conditions_are_dropped_each_by_itself():
    task = opened(diffusion(tiny(classes=3), condition_on_labels(classes=3)))
    task.conditions.drops = (0.1, 0.5)
    dropped = task.dropped(4000, generator()).float()
    torch.testing.assert_close(dropped.mean(0), torch.tensor([0.1, 0.5]), rtol=0, atol=0.03)
    assert (dropped[:, 0] * dropped[:, 1]).mean().item() == pytest.approx(0.05, abs=0.02)


def test_the_small_picture_is_the_mean_over_areas_in_256_levels():
    levels = torch.arange(2 * 3 * 16, dtype=torch.uint8).view(2, 3, 4, 4)
    wanted = levels.double().view(2, 3, 2, 2, 2, 2).mean((3, 5)).round()
    assert torch.equal(small_levels(levels, 2).double(), wanted)


def test_a_small_picture_without_noise_is_shown_exactly():
    task = opened(diffusion(tiny(low_res=True, level=True), low_res=4))
    rows = task.batch(0, 0)
    shown = task.shown(rows, generator())
    assert torch.equal(shown["low_res"], small_levels(rows["levels"], 4).float() / 127.5 - 1)
    assert (shown["low_res_level"] == 0).all()


def test_noise_on_the_small_picture_has_a_level_per_sample_that_is_told():
    task = opened(diffusion(tiny(low_res=True, level=True), low_res=4, low_res_noise=0.5), batch=16)
    rows = task.batch(0, 0)
    shown = task.shown(rows, generator())
    level = shown["low_res_level"]
    assert len(level.unique()) == 16 and 0 <= level.min() and 0.3 < level.max() <= 0.5
    angle = level.view(-1, 1, 1, 1) * torch.pi / 2
    noise = (shown["low_res"] - angle.cos() * (small_levels(rows["levels"], 4).float() / 127.5 - 1)) / angle.sin()
    assert noise.std().item() == pytest.approx(1, abs=0.1)


def test_an_inpainting_model_is_shown_what_is_kept_and_where():
    task = opened(diffusion(tiny(extra=4), inpaint=True), batch=16)
    rows = task.batch(0, 0)
    shown = task.shown(rows, generator())["concat"]
    known, keep = shown[:, :3], shown[:, 3:]
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(known, task.clean(rows) * keep)


def test_masks_have_holes_of_all_kinds_and_are_drawn_by_the_sample():
    keep = hole_masks(400, 16, generator())
    kept = keep.mean((1, 2, 3))
    assert (kept == 0).float().mean().item() == pytest.approx(1 / 8, abs=0.05)
    assert kept.max() < 1 and 0.3 < kept.mean() < 0.8 and len(kept.unique()) > 50
    rows, columns = keep[:, 0].amin(2), keep[:, 0].amin(1)
    box = (1 - (1 - rows)[:, :, None] * (1 - columns)[:, None]) == keep[:, 0]
    assert 0.5 < box.all(2).all(1).float().mean() < 0.75  # boxes, and those that keep nothing


def test_latents_are_encoded_once_per_item_and_noised_in_their_place():
    made = tiny(AUTOENCODER, size=16)
    assert (made.sample_size, made.channels, made.space) == (8, 4, "halves")
    task = opened(diffusion(made, autoencoder=AUTOENCODER))
    first, again = task.batch(0, 0), task.batch(0, 0)
    assert torch.equal(first["latents"], again["latents"]) and task.encoder.count == 8
    small = torch.nn.functional.avg_pool2d(first["levels"].float() / 127.5 - 1, 2)
    torch.testing.assert_close(task.clean(first)[:, :3], small)
    task.loss(first, "denoiser", generator())[0].backward()
    assert task.sheet(generator()).data.shape[-1] == 3


def test_a_frozen_text_is_encoded_once_and_dropped_to_the_empty_one():
    task = opened(diffusion(tiny(attention="cross", context=4), condition_on_text(ENCODER)))
    task.batch(0, 0)
    task.batch(0, 0)
    assert SEEN.count("") == 1 and len(SEEN) == len(set(SEEN)) == 2 + 8
    rows = task.batch(0, 0)
    dropped = torch.tensor([True, False] * 4)
    context_ = task.told(rows, dropped, {}).context
    assert (context_[0::2] == 0).all() and (context_[1::2] > 8).all()
    assert task.modules.keys() == {"unet"} and task.weights().keys() == {"unet"}
    assert task.told(rows, dropped, {}).pooled is None  # which this network does not read


def test_a_text_encoder_that_is_gone_on_from_begins_as_it_was_and_stays_so_itself():
    encoder = checkpoint(Source(SOURCE, str(resolve_source(SOURCE)), "0")).text_encoder
    before = fake_context().realise(encoder).condition(["a red star"])
    made = tiny(attention="cross", context=128, pooled=128)
    task = opened(diffusion(made, condition_on_trained_text(encoder)), WORLD)
    rows = task.conditions.read([{"caption": "a red star"}])
    assert torch.equal(task.conditions(rows, torch.tensor([False])).context, before.context)
    with torch.no_grad():
        for parameter in task.conditions.module.parameters():
            parameter.add_(1.0)
    assert torch.equal(fake_context().realise(encoder).condition(["a red star"]).context, before.context)
    again = fake_context().realise(text_encoder(task.weights()["text"])).condition(["a red star"])
    assert torch.equal(again.context, task.conditions(rows, torch.tensor([False])).context)


def test_a_text_encoder_with_other_tokens_is_not_gone_on_from():
    with pytest.raises(UserError, match="CLIP's kind with the data set's own tokens"):
        opened(diffusion(tiny(attention="cross", context=8), condition_on_trained_text(ENCODER)), WORLD)


def test_a_trained_text_learns_along_and_ships_with_its_tokenizer():
    made = tiny(attention="joint", context=8, pooled=8)
    task = opened(diffusion(made, condition_on_trained_text(**TEXT)), WORLD)
    torch.nn.init.normal_(task.unet.network.conv_out.weight)  # it starts as zeros, past which nothing flows
    for parameter in task.unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    task.loss(task.batch(0, 0), "denoiser", generator())[0].backward()
    text = task.modules["text"]
    assert text.token_embedding.weight.grad.abs().sum() > 0
    parts = task.weights()
    assert parts.keys() == {"unet", "text"}
    record = parts["text"].meta["text_encoder"]
    assert record["kind"] == "glide" and "vocab.json" in record["tokenizer"]


def test_the_trained_network_is_a_denoiser_again():
    got = trained(diffusion(tiny(classes=8), condition_on_labels(classes=8)), labelled())
    part = part_of(got.weights, "denoiser")
    assert part.meta["denoiser"]["sample_size"] == 8 and len(part.meta["labels"]) == 8
    network = build_network(part)
    told = Conditioning(label=torch.tensor([1, 8]))
    assert network(torch.zeros(2, 3, 8, 8), torch.tensor([3.0, 500.0]), told).shape == (2, 3, 8, 8)


def labelled():
    return Dataset(WORLD.reader, {**WORLD.config, "label": "shape"}, WORLD.length)


def test_held_out_pictures_are_never_trained_on_and_their_figures_are_always_the_same():
    task = opened(diffusion(tiny()))
    task.pictures.reader.read.clear()
    for step in range(20):
        task.batch(step, 0)
    assert set(task.pictures.reader.read) == set(range(36))
    first, again = task.validate(generator(5)), task.validate(generator(5))
    assert first == again and first.keys() == {"loss", "mse0", "mse1", "mse2", "mse3"}
    assert first["loss"] == pytest.approx(sum(first[f"mse{i}"] for i in range(4)) / 4)


def test_samples_go_where_guidance_says():
    task = opened(diffusion(tiny(prediction="x0")))
    task.unet = lambda x, times, told: torch.full_like(x, 0.25 if told.label is not None else 0.1)
    told = Conditioning(label=torch.zeros(2, dtype=torch.int64))
    shape = torch.Size((2, 3, 8, 8))
    for guidance, wanted in ((0.0, 0.1), (1.0, 0.25), (3.0, 0.55)):
        drawn = guided(task, told, Conditioning(), shape, generator(), 4, guidance)
        torch.testing.assert_close(drawn, torch.full(shape, wanted))


def test_a_deterministic_run_of_the_exact_denoiser_gives_the_datas_spread():
    task = opened(diffusion(tiny(prediction="eps")))
    spread = 0.2

    def exact(x, times, told):  # of normal data
        alpha, sigma = task.process.at(times, x)
        return x * sigma / (alpha**2 * spread**2 + sigma**2)

    task.unet = exact
    drawn = guided(task, Conditioning(), None, torch.Size((64, 3, 8, 8)), generator(), 100, 1.0)
    assert drawn.std().item() == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_stopped_run_ends_in_the_same_bits_with_all_that_there_is(at, whole):
    first = context(cancel_at=at, previews=False)
    keep = first._services.save_state
    first._services.save_state = lambda state: keep(copy.deepcopy(dict(state)))
    with pytest.raises(Cancelled):
        trained(everything(), ctx=first, validate_every=2)
    again = trained(everything(), ctx=context(state=first.states[-1], previews=False), validate_every=2)
    assert again.weights.tensors.keys() == whole.weights.tensors.keys()
    assert all(torch.equal(value, whole.weights.tensors[name]) for name, value in again.weights.tensors.items())
    assert again.report.data == whole.report.data
    assert torch.equal(again.sheet.data, whole.sheet.data)


@pytest.fixture(scope="module")
def whole():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mezzotint_image, "draw_chart", lambda *a, **o: Image(torch.zeros(1, 2, 2, 3)), raising=False)
        return trained(everything(), validate_every=2)


def test_the_learned_variances_bound_is_reported_and_the_text_is_part_of_the_weights(whole):
    assert {"mse", "bits", "loss"} <= whole.report.data["curve"][0].keys()
    assert split(whole.weights).keys() == {"unet", "text"}


def test_partial_init_takes_what_fits_and_says_what_not(whole):
    with pytest.raises(UserError, match="partial_init takes what does"):
        trained(diffusion(tiny(classes=8), condition_on_labels(classes=8)), labelled(), init=whole.weights)
    got = trained(
        diffusion(tiny(classes=8, learned_variance=True), condition_on_labels(classes=8)), labelled(),
        init=whole.weights, partial_init=True, steps=1, learning_rate=1e-12, ema=0.0,
    )  # fmt: skip
    given, taken = split(whole.weights)["unet"].tensors, split(got.weights)["unet"].tensors
    report = got.report.data["init"]["unet"]
    shared = [n for n, value in taken.items() if n in given and given[n].shape == value.shape]
    assert (report["taken"], report["of"]) == (len(shared), len(taken)) and len(shared) > 20
    assert report["fresh"] == ["label_embedding.weight"]
    for name in shared:
        torch.testing.assert_close(taken[name], given[name], rtol=0, atol=1e-6)


def test_partial_init_of_nothing_that_fits_is_refused(whole):
    stranger = split(whole.weights)["text"]
    with pytest.raises(UserError, match="init: no tensor fits unet, got those of mezzotint"):
        trained(diffusion(tiny()), init=stranger, partial_init=True)


ERRORS = {
    "items have no caption, but image, label. Take a data set with captions": lambda: (
        diffusion(tiny(attention="cross", context=4), condition_on_text(ENCODER)), {"without": ["caption"]},
    ),
    "items have no label, but caption, image": lambda: (
        diffusion(tiny(classes=3), condition_on_labels(classes=3)), {"without": ["label"]},
    ),
    "wanted 0 to 1: raise classes": lambda: (diffusion(tiny(classes=2), condition_on_labels(classes=2)), {}),
    "is 16 pixels across, less than the size 32": lambda: (diffusion(tiny(size=32)), {}),
    "wanted items with an image, got caption, label": lambda: (diffusion(tiny()), {"without": ["image"]}),
    "tells label, and the architecture reads nothing: set models.unet's classes": lambda: (
        diffusion(tiny(), condition_on_labels(classes=3)), {},
    ),
    "reads label .models.unet's classes., and there is no conditioner": lambda: (diffusion(tiny(classes=3)), {}),
    "context is 4 wide, the architecture reads 8: set models.unet's context to 4": lambda: (
        diffusion(tiny(attention="cross", context=8), condition_on_text(ENCODER)), {},
    ),
    "has 5 classes, and the conditioner's null class is number 3: set classes of both": lambda: (
        diffusion(tiny(classes=5), condition_on_labels(classes=3)), {},
    ),
    "data set has no tokenizer": lambda: (
        diffusion(tiny(attention="joint", context=8), condition_on_trained_text(**TEXT)), {},
    ),
    "low_res=False and 8 pixels wants 0": lambda: (diffusion(tiny(), low_res=4), {}),
    "low_res=True and 8 pixels wants 1 to 7": lambda: (diffusion(tiny(low_res=True), low_res=8), {}),
    "models.unet with level=true": lambda: (diffusion(tiny(low_res=True), low_res=4, low_res_noise=0.1), {}),
    "set models.unet's extra to 4": lambda: (diffusion(tiny(), inpaint=True), {}),
    "works in 'pixels' and an autoencoder is given": lambda: (diffusion(tiny(), autoencoder=AUTOENCODER), {}),
    "works in 'halves' and none is given": lambda: (diffusion(tiny(AUTOENCODER, size=16)), {}),
    "not the one that the architecture was made for": lambda: (
        diffusion(tiny(AUTOENCODER, size=16), autoencoder=AUTOENCODER.replace(space="other")), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", ERRORS)
def test_what_does_not_go_together_is_refused_before_training_and_says_what_to_do(message):
    objective, config = ERRORS[message]()
    with pytest.raises(UserError, match=message):
        trained(objective, PICTURES.replace(config=config))


def test_frozen_parameters_stay_while_those_behind_them_learn():
    frozen = ["network.conv_in.*", "network.time_embedding.*", "network.down_blocks.*"]
    task = opened(diffusion(tiny(), frozen=frozen))
    task.loss(task.batch(0, 0), "denoiser", generator())[0].backward()
    learns = {name for name, value in task.unet.named_parameters() if value.grad is not None}
    stays = {name for name, _ in task.unet.named_parameters()} - learns
    assert all(name.startswith(tuple(pattern[:-1] for pattern in frozen)) for name in stays)
    assert len(stays) > 10 and any(name.startswith("network.mid_block") for name in learns)
    with pytest.raises(UserError, match="fits no parameter"):
        opened(diffusion(tiny(), frozen=["nothing.*"]))
    with pytest.raises(UserError, match="leaves nothing to train"):
        opened(diffusion(tiny(), frozen=["*"]))


def test_the_nodes_keep_what_every_node_promises():
    labels = check_node(condition_on_labels, classes=3)["conditioner"]
    check_node(condition_on_text, encoder=ENCODER)
    check_node(condition_on_trained_text, **TEXT)
    check_node(
        diffusion, architecture=tiny(classes=3), conditioner=labels, autoencoder=AUTOENCODER, weighting="p2"
    )
