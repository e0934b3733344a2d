"""Imagic's two trainings: what learns in each, what stays, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, Dataset, Latents, UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_kernels import normals
from mezzotint_models.tuned import tuned
from mezzotint_training.imagic import fit_conditioning, fit_denoiser, fitted_conditioning
from mezzotint_training.train_node import train

pytestmark = pytest.mark.usefixtures("quick_charts")
TEXT = Conditioning(context=normals(1, (1, 4, 16)), pooled=normals(2, (1, 16)))
PICTURE = Latents(normals(0, (1, 3, 8, 8)), space="pixels", downscale=1)
A = {"steps": 25, "batch": 4, "learning_rate": 0.05, "validate_every": 25}
B = {"steps": 25, "batch": 4, "learning_rate": 3e-3, "validate_every": 25}
PLAIN = {"warm_up": 0, "cool_down": 0.0, "ema": 0.0, "weight_decay": 0.0, "report_every": 10, "optimiser": "adam"}


def state(model):
    return {name: p.detach().clone() for name, p in fake_context().realise(model).module.named_parameters()}


@pytest.fixture(scope="module")
def first(model):
    return train(fake_context(), fit_conditioning(model, TEXT, PICTURE), **A, **PLAIN)


def test_the_encoding_learns_the_picture_and_the_model_learns_it_further(model, first):
    found = fitted_conditioning(first.weights, TEXT)
    second = train(fake_context(), fit_denoiser(model, found, PICTURE), **B, **PLAIN)
    (a,), (b,) = first.report.data["validation"], second.report.data["validation"]
    # One measure all along: B begins where A ended.
    assert b["start"] == pytest.approx(a["loss"], rel=1e-5)
    assert b["loss"] < a["loss"] < a["start"]


def test_stage_a_moves_every_token_and_leaves_the_model_to_the_bit(model, first):
    context = fake_context()
    realised = context.realise(model)
    before = {name: p.detach().clone() for name, p in realised.module.named_parameters()}
    inner = fake_context(loaders={model.loader: lambda recipe, ctx: realised})
    trained = train(
        inner, fit_conditioning(model, TEXT, PICTURE), **{**A, "steps": 3, "validate_every": 0}, **PLAIN
    )
    assert all(torch.equal(p, before[name]) for name, p in realised.module.named_parameters())
    assert not any(p.requires_grad for p in realised.module.parameters())
    moved = fitted_conditioning(trained.weights, TEXT)
    assert ((moved.context - TEXT.context).abs().amax(-1) > 0).all()
    assert torch.equal(moved.pooled, TEXT.pooled)
    assert set(trained.weights.tensors) == {"context"} and trained.weights.kind == "rows"


def test_stage_b_tunes_a_copy_whose_differences_make_the_tuned_model(model, first):
    before = state(model)
    made = fit_denoiser(model, fitted_conditioning(first.weights, TEXT), PICTURE, layers=["attn2"])
    weights = train(fake_context(), made, **{**B, "steps": 3, "validate_every": 0}, **PLAIN).weights
    assert set(weights.tensors) == {name for name in before if "attn2" in name}
    assert any(change.abs().max() > 0 for change in weights.tensors.values())
    assert all(torch.equal(now, before[name]) for name, now in state(model).items())
    with fake_context() as context:
        moved = dict(context.realise(tuned(model, weights)).module.named_parameters())
        for name, value in before.items():
            wanted = value + weights.tensors[name] if name in weights.tensors else value
            torch.testing.assert_close(moved[name], wanted, atol=1e-6, rtol=0)


def test_a_stage_goes_on_where_it_was_stopped(model):
    whole = train(fake_context(), fit_conditioning(model, TEXT, PICTURE), **{**A, "steps": 6}, **PLAIN)
    stopped = fake_context(cancel_at=3)
    with pytest.raises(Exception, match="cancelled"):
        train(stopped, fit_conditioning(model, TEXT, PICTURE), **{**A, "steps": 6}, **PLAIN)
    again = fake_context(state=stopped.states[-1])
    resumed = train(again, fit_conditioning(model, TEXT, PICTURE), **{**A, "steps": 6}, **PLAIN)
    assert torch.equal(resumed.weights.tensors["context"], whole.weights.tensors["context"])


def test_what_does_not_fit_is_refused_with_what_to_do_instead(model, first):
    two = PICTURE.replace(data=PICTURE.data.expand(2, -1, -1, -1))
    for stage in (fit_conditioning, fit_denoiser):
        with pytest.raises(UserError, match=r"latents of one picture, .*got \[2, 3, 8, 8\]; flow.map"):
            stage(model, TEXT, two)
        with pytest.raises(UserError, match=r"3 channels and 8 pixels to a side.*its own autoencoder"):
            stage(model, TEXT, PICTURE.replace(downscale=8))
        with pytest.raises(UserError, match="of the space 'other'"):
            stage(model, TEXT, PICTURE.replace(space="other"))
        with pytest.raises(UserError, match=r"encoding of one text.*got \[2, 4, 16\]"):
            stage(model, TEXT.replace(context=TEXT.context.expand(2, -1, -1)), PICTURE)
        with pytest.raises(UserError, match=r"encoding of one text.*got nothing"):
            stage(model, Conditioning(), PICTURE)
        with pytest.raises(UserError, match="with patches: guide it afterwards"):
            stage(tuned(model, first.weights.replace(meta={"class": "differences", "tuned": {}})), TEXT, PICTURE)
    with pytest.raises(UserError, match=r"no name of the denoiser's tensors has 'attn9'"):
        train(fake_context(), fit_denoiser(model, TEXT, PICTURE, layers=["attn9"]), **B, **PLAIN)
    wide = Conditioning(context=torch.zeros(1, 4, 8))
    with pytest.raises(UserError, match="reads texts 16 wide, the conditioning is 8"):
        train(fake_context(), fit_conditioning(model, wide, PICTURE), **A, **PLAIN)
    with pytest.raises(UserError, match=r"an encoding \[1, 4, 16\], the conditioning's is \[1, 4, 8\]"):
        fitted_conditioning(first.weights, wide)
    with pytest.raises(
        UserError, match=r"wanted weights that training.fit_conditioning trained, got those of other"
    ):
        fitted_conditioning(first.weights.replace(target="other"), TEXT)


def test_an_objective_that_holds_its_picture_takes_no_data_set_and_others_need_one(model):
    from mezzotint_training.contrastive import ContrastiveObjective

    data = Dataset("tests.none", {}, 1)
    with pytest.raises(UserError, match="holds what it learns from; leave the data set out"):
        train(fake_context(), fit_conditioning(model, TEXT, PICTURE), data, **A, **PLAIN)
    with pytest.raises(UserError, match="wanted a data set, got none"):
        train(fake_context(), object.__new__(ContrastiveObjective), **A, **PLAIN)


def test_the_nodes_keep_what_every_node_promises(model, first):
    check_node(fit_conditioning, denoiser=model, conditioning=TEXT, latents=PICTURE)
    check_node(fit_denoiser, denoiser=model, conditioning=TEXT, latents=PICTURE)
    check_node(fitted_conditioning, weights=first.weights, conditioning=TEXT)
