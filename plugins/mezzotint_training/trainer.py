"""One training loop for every objective: AdamW or Muon, warm-up and cool-down, clipping, EMA, exact resume.

The loop knows neither pictures nor models. An `Objective` owns the modules and answers with a loss;
a `BatchSource` answers with the batch of a step; all randomness of a step comes from a generator
that is seeded by (seed, step, rank). A run that is stopped and resumed therefore repeats an
uninterrupted one bit for bit, on the same machine and thread count.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mezzotint_training.muon import MuonAdamW

Figures = dict[str, Tensor]


class Objective(Protocol):
    """What is trained, and the loss that trains it."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The trained modules by name; every parameter that requires a gradient is tuned."""

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, Figures]:
        """Scalar loss of one batch, and detached scalars worth logging."""


class BatchSource(Protocol):
    """Batches by step: the same (step, rank) gives the same batch."""

    def __call__(self, step: int, rank: int) -> Any: ...


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train.

    steps: total number of optimiser steps. learning_rate: its plateau.
    warm_up: steps of linear rise. cool_down: share of the steps at the end with linear fall to 0.
    optimiser: "muon" turns hidden matrices by orthogonal steps and leaves the rest to AdamW.
    clip: largest gradient norm. ema: decay of the weight average, ramped up from 0; 0 is none.
    """

    steps: int
    learning_rate: float = 1e-3
    warm_up: int = 300
    cool_down: float = 0.25
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    optimiser: Literal["adamw", "muon"] = "adamw"

    def rate(self, step: int) -> float:
        """Learning rate of a 0-based step: trapezoid of warm-up, plateau and cool-down."""
        rise = (step + 1) / max(self.warm_up, 1)
        fall = (self.steps - step) / max(self.steps * self.cool_down, 1)
        return self.learning_rate * max(0.0, min(1.0, rise, fall))

    def decay(self, step: int) -> float:
        """EMA decay of a 0-based step: (1 + n) / (10 + n), at most `ema`."""
        return min(self.ema, (1 + step) / (10 + step))


@dataclass
class Replicas:
    """Data-parallel copies of one run: gradients are averaged over `world` processes."""

    rank: int = 0
    world: int = 1

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over all replicas, in place."""
        if self.world == 1:
            return
        flat = torch._utils._flatten_dense_tensors(tensors)
        self.total(flat)
        flat /= self.world
        parts = torch._utils._unflatten_dense_tensors(flat, tensors)
        torch._foreach_copy_(tensors, list(parts))

    def total(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all replicas, in place."""
        torch.distributed.all_reduce(tensor)


def step_generator(seed: int, step: int, rank: int = 0, device: str = "cpu") -> torch.Generator:
    """A generator that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))


@dataclass
class Callbacks:
    """What to do beside training; every entry may be None and runs on rank 0 only.

    on_step: every `log_every` steps, with the step and mean figures since the last call.
    on_sample: every `sample_every` steps, with EMA weights in the modules.
    on_save: every `save_seconds` and at the end.
    """

    on_step: Callable[[int, dict[str, float]], None] | None = None
    on_sample: Callable[[int], None] | None = None
    on_save: Callable[[int], None] | None = None
    log_every: int = 50
    sample_every: int = 0
    save_seconds: float = 120.0


@dataclass
class Trainer:
    """The loop and its whole state."""

    objective: Objective
    batches: BatchSource
    recipe: Recipe
    replicas: Replicas = field(default_factory=Replicas)
    step: int = 0

    def __post_init__(self) -> None:
        self.parameters = {
            f"{name}.{key}": parameter
            for name, module in self.objective.modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self._list = list(self.parameters.values())
        self.average = [parameter.detach().clone() for parameter in self._list]
        self.optimiser = self._make_optimiser()

    def _make_optimiser(self) -> torch.optim.Optimizer:
        recipe, copies = self.recipe, self.replicas
        options = {"lr": recipe.learning_rate, "betas": recipe.betas, "weight_decay": recipe.weight_decay}
        if recipe.optimiser == "adamw":
            return torch.optim.AdamW(self._list, fused=True, **options)
        return MuonAdamW(self.parameters, rank=copies.rank, world=copies.world, total=copies.total, **options)

    def run(self, callbacks: Callbacks | None = None, until: int | None = None) -> None:
        """Train to `until` (default: the recipe's end)."""
        calls = callbacks or Callbacks()
        end = self.recipe.steps if until is None else min(until, self.recipe.steps)
        sums: Figures = {}
        saved = started = time.monotonic()
        logged = self.step
        lead = self.replicas.rank == 0
        while self.step < end:
            figures = self._advance()
            for name, value in figures.items():
                sums[name] = sums[name] + value if name in sums else value.clone()
            if calls.on_step and self.step % calls.log_every == 0:
                count = self.step - logged
                means = {name: value.item() / count for name, value in sums.items()}
                means["seconds"] = time.monotonic() - started
                if lead:
                    calls.on_step(self.step, means)
                sums, logged = {}, self.step
            if lead and calls.on_sample and calls.sample_every and self.step % calls.sample_every == 0:
                with self.averaged():
                    calls.on_sample(self.step)
            if lead and calls.on_save and time.monotonic() - saved > calls.save_seconds:
                calls.on_save(self.step)
                saved = time.monotonic()
        if lead and calls.on_save:
            calls.on_save(self.step)

    def _advance(self) -> Figures:
        generator = step_generator(self.recipe.seed, self.step, self.replicas.rank)
        batch = self.batches(self.step, self.replicas.rank)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        loss, figures = self.objective.loss(batch, generator)
        loss.backward()
        gradients = [p.grad for p in self._list if p.grad is not None]
        self.replicas.average(gradients)
        norm = nn.utils.clip_grad_norm_(self._list, self.recipe.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        decay = self.recipe.decay(self.step)
        torch._foreach_lerp_(self.average, [p.detach() for p in self._list], 1 - decay)
        self.step += 1
        return {"loss": loss.detach(), "norm": norm.detach(), **figures}

    def averaged(self) -> _Swapped:
        """Context manager: the modules hold the averaged weights inside."""
        return _Swapped(self)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resumed run needs: tensors by name, and JSON values."""
        tensors: dict[str, Tensor] = {}
        for (name, parameter), average in zip(self.parameters.items(), self.average, strict=True):
            tensors[f"weight/{name}"] = parameter.detach().contiguous()
            tensors[f"average/{name}"] = average.contiguous()
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser/{key}/{name}"] = value.contiguous()
        return tensors, {"step": self.step, "seed": self.recipe.seed}

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Continue from `state()`. Raises: KeyError: a parameter that the state lacks."""
        with torch.no_grad():
            for (name, parameter), average in zip(self.parameters.items(), self.average, strict=True):
                parameter.copy_(tensors[f"weight/{name}"])
                average.copy_(tensors[f"average/{name}"])
                kept = {
                    key: _laid_out_as(tensors[f"optimiser/{key}/{name}"], parameter)
                    for key in ("step", "exp_avg", "exp_avg_sq", "momentum")
                    if f"optimiser/{key}/{name}" in tensors
                }
                if kept:
                    self.optimiser.state[parameter] = kept
        self.step = int(meta["step"])


def _laid_out_as(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy with the parameter's own strides: fused optimisers go through memory side by side."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.clone()


class _Swapped:
    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def _swap(self) -> None:
        with torch.no_grad():
            for parameter, average in zip(self.trainer._list, self.trainer.average, strict=True):
                kept = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(kept)

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()


def save_state(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a crash leaves the old one or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(dict(tensors), part, metadata={"state": json.dumps(dict(meta))})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote."""
    with safe_open(path, framework="pt") as file:
        meta: dict[str, Any] = json.loads(file.metadata()["state"])
        return {name: file.get_tensor(name) for name in file.keys()}, meta
