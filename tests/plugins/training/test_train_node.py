"""`training.train`: closed forms, exact resume at any step, a NaN that loses nothing, parts, early stop."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import pytest
import torch

import mezzotint_image
from mezzotint import Cancelled, Image, UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_training import split
from mezzotint_training.train_node import train

sys.path.insert(0, str(Path(__file__).parent))
import tasks
from tasks import DATA, Bowl, Duel, Fit

PLAIN = {"optimiser": "sgd", "betas": [0.0, 0.0], "weight_decay": 0.0, "warm_up": 0, "cool_down": 0.0, "ema": 0.0}


def context(**more):
    made = fake_context(loaders={"tests.numbers": tasks.Numbers}, **more)
    keep = made._services.save_state
    # As the engine's store does: what is saved does not change with the weights.
    made._services.save_state = lambda state: keep(copy.deepcopy(dict(state)))
    return made


@pytest.fixture(autouse=True)
def quick_charts(request, monkeypatch):
    """Charts are drawn in the one test that looks at them."""
    if "picture" not in request.node.name:
        blank = Image(torch.zeros(1, 2, 2, 3))
        monkeypatch.setattr(mezzotint_image, "draw_chart", lambda *args, **options: blank, raising=False)


def trained(objective, init=None, ctx=None, **settings):
    settings = {"steps": 7, "batch": 4, "report_every": 3, **settings}
    return train(ctx or context(), objective, DATA, init, **settings)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("steps", [1, 10])
def test_gradient_descent_on_a_quadratic_is_its_closed_form(steps):
    got = trained(Bowl(), steps=steps, learning_rate=0.25, clip=0.0, **PLAIN)
    assert got.weights.tensors["weight"].item() == pytest.approx(3 - 3 * 0.75**steps, rel=1e-6)


def test_a_clipped_step_has_the_norm_that_is_asked_for():
    got = trained(Bowl(target=100.0), steps=1, learning_rate=0.5, clip=2.0, **PLAIN)
    assert got.weights.tensors["weight"].item() == pytest.approx(0.5 * 2.0, rel=1e-5)


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "muon", "rmsprop", "sgd"])
def test_every_optimiser_lowers_the_loss_and_resumes_in_the_same_bits(optimiser):
    settings = {"steps": 40, "learning_rate": 0.02, "warm_up": 0, "optimiser": optimiser, "report_every": 10}
    whole = trained(Fit(), **settings)
    curve = [row["loss"] for row in whole.report.data["curve"]]
    assert curve[-1] < 0.6 * curve[0]
    assert same(stopped_and_resumed(Fit(), 21, **settings).weights.tensors, whole.weights.tensors)


def stopped_and_resumed(objective, at, **settings):
    first = context(cancel_at=at)
    with pytest.raises(Cancelled):
        trained(objective, ctx=first, **settings)
    return trained(objective, ctx=context(state=first.states[-1]), **settings)


@pytest.mark.parametrize("objective", [Fit(), Duel()], ids=["one part", "two parts"])
def test_a_run_stopped_at_any_step_ends_in_the_same_bits(objective):
    settings = {"validate_every": 2, "accumulate": 2}
    whole = trained(objective, **settings)
    for at in range(1, 8):
        again = stopped_and_resumed(objective, at, **settings)
        assert same(again.weights.tensors, whole.weights.tensors), at
        assert again.report.data == whole.report.data, at


def test_a_run_stopped_twice_ends_in_the_same_bits():
    whole, first = trained(Duel()), context(cancel_at=2)
    with pytest.raises(Cancelled):
        trained(Duel(), ctx=first)
    second = context(cancel_at=3, state=first.states[-1])
    with pytest.raises(Cancelled):
        trained(Duel(), ctx=second)
    assert same(trained(Duel(), ctx=context(state=second.states[-1])).weights.tensors, whole.weights.tensors)


def test_accumulated_batches_equal_the_large_one():
    large = trained(Fit(), batch=6, accumulate=1, learning_rate=0.01)
    small = trained(Fit(), batch=2, accumulate=3, learning_rate=0.01)
    losses = [[row["loss"] for row in got.report.data["curve"]] for got in (large, small)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, value in large.weights.tensors.items():
        torch.testing.assert_close(small.weights.tensors[name], value, rtol=1e-4, atol=1e-5)
    other = trained(Fit(), batch=2, accumulate=1, learning_rate=0.01)
    assert (other.weights.tensors["0.weight"] - large.weights.tensors["0.weight"]).abs().max() > 1e-4


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state():
    ctx = context()
    with pytest.raises(UserError, match=r"loss is nan in step 5; last good state: that of step 4 is kept"):
        trained(Bowl(nan_at=4), ctx=ctx, learning_rate=0.25, clip=0.0, **PLAIN)
    kept = ctx.states[-1]
    assert kept["meta"]["step"] == 4
    assert kept["tensors"]["weight/bowl.weight"].item() == pytest.approx(3 - 3 * 0.75**4)
    assert all(value.isfinite().all() for value in kept["tensors"].values())


def test_a_gradient_that_is_not_finite_stops_too():
    class Infinite(tasks.BowlTask):
        def loss(self, batch, part, generator):
            weight = self.modules["bowl"].weight
            return weight.abs().sqrt().sum(), {}  # 0, with an infinite slope

    class Objective(Bowl):
        def open(self, ctx, reader, seed, batch):
            return Infinite(self)

    with pytest.raises(UserError, match=r"norm is (nan|inf) in step 1"):
        trained(Objective())


def test_a_nan_in_the_second_part_keeps_a_whole_state():
    ctx = context()
    with pytest.raises(
        UserError, match=r"generator_loss is nan in step 4; last good state: that of step \d is kept"
    ):
        trained(Duel("generator", 6), ctx=ctx)
    kept = ctx.states[-1]
    assert kept["meta"]["step"] <= 3
    assert all(value.isfinite().all() for value in kept["tensors"].values())
    # The right data from here on would end as if nothing had been.
    resumed = trained(Duel(), ctx=context(state=kept))
    assert same(resumed.weights.tensors, trained(Duel()).weights.tensors)


def test_parts_take_turns_and_leave_each_other_alone():
    seen = []

    class Objective(Duel):
        def open(self, ctx, reader, seed, batch):
            seen.append(super().open(ctx, reader, seed, batch))
            return seen[-1]

    got = trained(Objective(), steps=3)
    critic, generator = ["critic"], ["generator"]
    assert seen[0].calls == [
        ("critic", 0, critic), ("critic", 1, critic),
        ("critic", 2, critic), ("critic", 3, critic), ("generator", 2, generator),
        ("critic", 4, critic), ("critic", 5, critic),
    ]  # fmt: skip
    parts = split(got.weights)
    assert parts.keys() == {"critic", "generator", "memory"}
    assert parts["critic"].meta["class"] == "critic"
    assert parts["memory"].tensors["mean"].item() != 0
    assert {"critic_loss", "generator_loss", "real"} <= got.report.data["curve"][0].keys()


def test_training_stops_when_validation_gets_no_better_and_takes_the_best_weights():
    got = trained(Bowl(rises=True), steps=50, validate_every=2, patience=3, learning_rate=0.1, clip=0.0, **PLAIN)
    validation = got.report.data["validation"]
    assert got.report.data["stopped_early"] and got.report.data["steps"] == 8
    assert got.weights.tensors["weight"].item() == validation[0]["w"] == min(row["w"] for row in validation)


def test_early_stop_resumes_with_the_best_weights():
    settings = {"steps": 50, "validate_every": 2, "patience": 3, "learning_rate": 0.1, "clip": 0.0, **PLAIN}
    whole = trained(Bowl(rises=True), **settings)
    again = stopped_and_resumed(Bowl(rises=True), 5, **settings)
    assert same(again.weights.tensors, whole.weights.tensors)
    assert again.report.data == whole.report.data


def test_while_validation_gets_better_training_goes_on():
    got = trained(Bowl(), steps=20, validate_every=2, patience=1, learning_rate=0.1, clip=0.0, **PLAIN)
    assert (got.report.data["steps"], got.report.data["stopped_early"]) == (20, False)


def test_training_goes_on_from_given_weights():
    first = trained(Bowl(), steps=4, learning_rate=0.25, clip=0.0, **PLAIN)
    second = trained(Bowl(), init=first.weights, steps=3, learning_rate=0.25, clip=0.0, **PLAIN)
    assert second.weights.tensors["weight"].item() == pytest.approx(3 - 3 * 0.75**7, rel=1e-6)
    both = trained(Duel())
    assert not same(trained(Duel(), init=both.weights).weights.tensors, both.weights.tensors)


def test_weights_of_other_networks_are_refused():
    with pytest.raises(UserError, match=r"init: the weights of 'net' do not fit"):
        trained(Fit(), init=trained(Bowl()).weights)
    with pytest.raises(UserError, match=r"init: wanted weights of critic, generator, memory, got those of Bowl"):
        trained(Duel(), init=trained(Bowl()).weights)


def test_patience_without_validation_is_refused():
    with pytest.raises(UserError, match="set validate_every"):
        trained(Bowl(), patience=2)


def test_an_empty_data_set_is_refused():
    with pytest.raises(UserError, match="the data set is empty"):
        train(context(), Fit(), DATA.replace(length=0), steps=1)


def test_bfloat16_losses_leave_float32_weights_near_the_float32_run():
    exact, rough = (trained(Fit(), steps=30, precision=p, learning_rate=0.01) for p in ("float32", "bfloat16"))
    for name, value in exact.weights.tensors.items():
        assert rough.weights.tensors[name].dtype == torch.float32
        torch.testing.assert_close(rough.weights.tensors[name], value, atol=0.05, rtol=0.05)
    assert not same(exact.weights.tensors, rough.weights.tensors)


def test_the_curve_is_a_picture_and_the_sheet_falls_back_on_it():
    got = trained(Fit())
    assert got.curve.data.shape[-1] == 3 and got.curve.data.std() > 0
    assert torch.equal(got.curve.data, got.sheet.data)
    assert [row["step"] for row in got.report.data["curve"]] == [3, 6]
    assert all(math.isfinite(row["loss"]) for row in got.report.data["curve"])


def test_torchs_own_generator_is_left_as_it_was():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    trained(Duel())
    assert torch.equal(torch.rand(3), wanted)


def test_it_keeps_what_every_node_promises():
    ctx = fake_context(loaders={"tests.numbers": tasks.Numbers})
    check_node(train, ctx=ctx, objective=Fit(), dataset=DATA, steps=2, batch=4)
