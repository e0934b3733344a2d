"""The training loop: schedules in closed form, and a stopped run that goes on as if it never stopped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mezzotint_training.randomness import step_generator
from mezzotint_training.recipe import Recipe
from mezzotint_training.single import Single
from mezzotint_training.state import load_state, save_state
from mezzotint_training.trainer import Callbacks, Trainer


class Line:
    """Least squares with noise, the smallest objective there is."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1))

    @property
    def modules(self):
        return {"line": self.model}

    def loss(self, batch, generator):
        noise = 0.1 * torch.randn(len(batch), 1, generator=generator)
        error = self.model(batch) - batch.sum(1, keepdim=True) + noise
        return error.square().mean(), {"size": torch.tensor(float(len(batch)))}


def batches(step, rank):
    return torch.randn(8, 3, generator=step_generator(7, step, rank))


def trainer(steps=20, **recipe):
    return Trainer(Single(Line(), batches), Recipe(steps=steps, warm_up=4, cool_down=0.5, **recipe))


def test_rate_is_a_trapezoid():
    recipe = Recipe(steps=100, learning_rate=2.0, warm_up=10, cool_down=0.2)
    assert recipe.rate(0) == pytest.approx(0.2)
    assert recipe.rate(9) == recipe.rate(50) == recipe.rate(80) == 2.0
    assert recipe.rate(90) == pytest.approx(1.0)
    assert recipe.rate(99) == pytest.approx(0.1)


def test_average_follows_its_closed_form():
    run = trainer(ema=0.5)
    expected = [p.detach().clone() for p in run.parameters.values()]
    for step in range(6):
        run.run(until=step + 1)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [
            decay * old + (1 - decay) * new.detach()
            for old, new in zip(expected, run.parameters.values(), strict=True)
        ]
    for got, wanted in zip(run.average, expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path):
    whole = trainer()
    whole.run()
    first = trainer()
    first.run(until=9)
    save_state(tmp_path / "state.safetensors", *first.state())
    second = trainer()
    second.restore(*load_state(tmp_path / "state.safetensors"))
    second.run()
    got, wanted = second.state(), whole.state()
    assert got[1] == wanted[1] == {"step": 20, "seed": 0}
    assert got[0].keys() == wanted[0].keys()
    assert all(torch.equal(got[0][name], wanted[0][name]) for name in wanted[0])


def test_averaged_weights_are_lent_and_taken_back():
    run = trainer()
    run.run(until=10)
    before = [p.detach().clone() for p in run.parameters.values()]
    average = [a.clone() for a in run.average]
    with run.averaged():
        inside = [p.detach().clone() for p in run.parameters.values()]
    after = [p.detach().clone() for p in run.parameters.values()]
    assert all(torch.equal(a, b) for a, b in zip(inside, average, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_half_written_checkpoint_never_takes_the_old_ones_place(tmp_path, monkeypatch):
    run, path = trainer(), tmp_path / "state.safetensors"
    save_state(path, *run.state())
    before = path.read_bytes()

    def broken(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("mezzotint_training.state.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save_state(path, *run.state())
    assert path.read_bytes() == before


def test_callbacks_see_means_since_their_last_call():
    seen = []
    calls = Callbacks(on_step=lambda step, figures: seen.append((step, figures["size"])), log_every=5)
    trainer().run(calls, until=12)
    assert seen == [(5, 8.0), (10, 8.0)]


def test_frozen_parameters_stay():
    objective = Line()
    objective.model[0].requires_grad_(False)
    before = objective.model[0].weight.clone()
    run = Trainer(Single(objective, batches), Recipe(steps=3, warm_up=1))
    run.run()
    assert torch.equal(objective.model[0].weight, before)
    assert all(name.startswith("line.2.") for name in run.parameters)


def test_randomness_depends_on_seed_step_and_rank_alone():
    draws = {
        torch.rand((), generator=step_generator(*key)).item()
        for key in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)]
    }
    assert len(draws) == 4
    assert torch.rand((), generator=step_generator(0, 1)).item() in draws


class Picture:
    """A convolution in channels-last memory, as the denoiser's are."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 3, 3)).to(
            memory_format=torch.channels_last
        )

    @property
    def modules(self):
        return {"picture": self.model}

    def loss(self, batch, generator):
        return (self.model(batch) - batch[..., 2:-2, 2:-2]).square().mean(), {}


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_channels_last_runs_resume_in_the_same_bits(tmp_path, optimiser):
    def run():
        recipe = Recipe(steps=8, warm_up=1, learning_rate=1e-2, optimiser=optimiser)
        batches = lambda step, rank: torch.randn(2, 3, 8, 8, generator=step_generator(3, step))  # noqa: E731
        return Trainer(Single(Picture(), batches), recipe)

    whole, first, second = run(), run(), run()
    whole.run()
    first.run(until=4)
    save_state(tmp_path / "state.safetensors", *first.state())
    second.restore(*load_state(tmp_path / "state.safetensors"))
    second.run()
    wanted, got = whole.state()[0], second.state()[0]
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
