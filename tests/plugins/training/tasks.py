"""Small objectives for the trainer's tests: a quadratic with a closed form, a fit, two networks in a duel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from mezzotint import Dataset, Weights
from mezzotint_training import Objective, Part, Task, pack, rows

DATA = Dataset("tests.numbers", {}, 12)


class Numbers:
    """Item i is i / 4."""

    def __init__(self, dataset, ctx):
        self.length = dataset.length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return index / 4


def numbers_of(task, step):
    chosen = rows(len(task.reader), task.size, task.seed, step)
    return torch.tensor([task.reader[row] for row in chosen])[:, None]


@dataclass(frozen=True, eq=False)
class Bowl(Objective):
    """(w - target)^2 / 2, whose gradient descent is known. nan_at: the batch whose loss is not finite."""

    target: float = 3.0
    nan_at: int = -1
    rises: bool = False

    def open(self, ctx, reader, seed, batch):
        return BowlTask(self)


class BowlTask(Task):
    def __init__(self, objective):
        self.objective = objective
        self.modules = {"bowl": nn.Linear(1, 1, bias=False)}
        nn.init.zeros_(self.modules["bowl"].weight)
        self.parts = (Part("bowl", ("bowl",)),)

    def batch(self, step, rank):
        return math.nan if step == self.objective.nan_at else 1.0

    def loss(self, batch, part, generator):
        return (self.modules["bowl"].weight - self.objective.target).square().sum() / 2 * batch, {}

    def validate(self, generator):
        value = self.modules["bowl"].weight.item()
        return {"loss": value if self.objective.rises else -value, "w": value}

    def weights(self):
        return pack(self.modules["bowl"], "Bowl", {})


@dataclass(frozen=True, eq=False)
class Fit(Objective):
    """Least squares on the items, without noise."""

    def open(self, ctx, reader, seed, batch):
        return FitTask(reader, seed, batch)


class FitTask(Task):
    def __init__(self, reader, seed, batch):
        self.reader, self.seed, self.size = reader, seed, batch
        self.modules = {"net": nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))}
        self.parts = ()

    def batch(self, step, rank):
        return numbers_of(self, step)

    def loss(self, batch, part, generator):
        return (self.modules["net"](batch) - batch.square()).square().mean(), {"mean": batch.mean()}

    def weights(self):
        return pack(self.modules["net"], "Fit", {})


@dataclass(frozen=True, eq=False)
class Duel(Objective):
    """A generator and a critic: dropout, noise, clipping, a buffer that `after` moves. nan_at: as in `Bowl`."""

    nan_part: str = ""
    nan_at: int = -1

    def open(self, ctx, reader, seed, batch):
        return DuelTask(reader, seed, batch, self)


class DuelTask(Task):
    def __init__(self, reader, seed, batch, objective):
        self.reader, self.seed, self.size, self.objective = reader, seed, batch, objective
        critic = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 1))
        memory = nn.Module()
        memory.register_buffer("mean", torch.zeros(1))
        self.modules = {"critic": critic, "generator": nn.Linear(2, 1), "memory": memory}
        self.parts = (
            Part("critic", ("critic",), repeats=2, optimiser={"optimiser": "rmsprop", "learning_rate": 3e-3}),
            Part("generator", ("generator",), every=2),
        )
        self.calls = []

    def batch(self, step, rank):
        return step, numbers_of(self, step)

    def loss(self, batch, part, generator):
        number, real = batch
        self.calls.append((part, number, [n for n, m in self.modules.items() if any(
            p.requires_grad for p in m.parameters())]))  # fmt: skip
        fake = self.modules["generator"](torch.randn(len(real), 2, generator=generator))
        scale = math.nan if (part, number) == (self.objective.nan_part, self.objective.nan_at) else 1.0
        if part == "generator":
            return -self.modules["critic"](fake).mean() * scale, {}
        critic = self.modules["critic"]
        return (critic(fake).mean() - critic(real).mean()) * scale, {"real": real.mean()}

    def after(self, part):
        if part == "critic":
            self.modules["memory"].mean.lerp_(self.modules["critic"][0].bias.mean(), 0.1)
            for parameter in self.modules["critic"].parameters():
                parameter.clamp_(-0.5, 0.5)

    def weights(self) -> dict[str, Weights]:
        return {name: pack(module, name, {}) for name, module in self.modules.items()}
