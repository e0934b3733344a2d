"""One training loop for every objective: parts with optimisers of their own, accumulation, EMA, exact resume.

The loop knows neither pictures nor models. A `Task` owns the modules, answers with the batch of a number and
with the loss of a part; all randomness of a loss comes from generators that are seeded by (seed, step, rank, part,
turn). So a run that is stopped and resumed repeats an uninterrupted one bit for bit, on the same machine and
thread count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint import PluginError
from mezzotint_training.figures import Diverged, Means
from mezzotint_training.objective import Part, Task
from mezzotint_training.randomness import seed_layers, step_generator
from mezzotint_training.recipe import Recipe, make_optimiser
from mezzotint_training.replicas import Replicas

Figures = dict[str, Tensor]


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
class Tuned:
    """A part with its parameters and optimiser. share: of the recipe's learning rate."""

    part: Part
    number: int
    parameters: dict[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    share: float
    clip: float


@dataclass
class Trainer:
    """The loop and its whole state. Modules lie on `device` from the start."""

    task: Task
    recipe: Recipe
    replicas: Replicas = field(default_factory=Replicas)
    device: str = "cpu"
    step: int = 0

    def __post_init__(self) -> None:
        self.parts = self._tuned()
        self.parameters = {name: p for tuned in self.parts for name, p in tuned.parameters.items()}
        self._list = list(self.parameters.values())
        self.average = [parameter.detach().clone() for parameter in self._list]
        self._turns = max(tuned.part.repeats for tuned in self.parts)
        self._batches: dict[int, Any] = {}
        self._stepped = False  # whether a part has stepped in this step

    def _tuned(self) -> list[Tuned]:
        modules = self.task.modules
        parts = tuple(self.task.parts) or (Part("loss", tuple(modules)),)
        named = [name for part in parts for name in part.modules]
        for name in named:
            if name not in modules or named.count(name) > 1:
                raise PluginError(f"module {name!r} is in several parts, or not among {', '.join(modules)}")
        for name, module in modules.items():
            module.to(self.device)
            if name in named:
                module.train()
            else:
                module.eval().requires_grad_(False)
        return [self._part(number, part) for number, part in enumerate(parts)]

    def _part(self, number: int, part: Part) -> Tuned:
        parameters = {
            f"{name}.{key}": parameter
            for name in part.modules
            for key, parameter in self.task.modules[name].named_parameters()
            if parameter.requires_grad
        }
        if not parameters:
            raise PluginError(f"part {part.name!r} has no parameter that requires a gradient")
        settings = self.recipe.own(part.optimiser)
        share = settings["learning_rate"] / self.recipe.learning_rate
        optimiser = make_optimiser(parameters, settings, self.replicas)
        return Tuned(part, number, parameters, optimiser, share, settings["clip"])

    def run(self, callbacks: Callbacks | None = None, until: int | None = None) -> None:
        """Train to `until` (default: the recipe's end)."""
        calls = callbacks or Callbacks()
        end = self.recipe.steps if until is None else min(until, self.recipe.steps)
        means = Means()
        saved = started = time.monotonic()
        lead = self.replicas.rank == 0
        while self.step < end:
            means.add(self.advance())
            if calls.on_step and self.step % calls.log_every == 0:
                figures = {**means.take(), "seconds": time.monotonic() - started}
                if lead:
                    calls.on_step(self.step, figures)
            if lead and calls.on_sample and calls.sample_every and self.step % calls.sample_every == 0:
                with self.averaged():
                    calls.on_sample(self.step)
            if lead and calls.on_save and time.monotonic() - saved > calls.save_seconds:
                calls.on_save(self.step)
                saved = time.monotonic()
        if lead and calls.on_save:
            calls.on_save(self.step)

    def advance(self) -> dict[str, float]:
        """One training step of every part whose turn it is, and its figures.

        Raises: Diverged: a loss or gradient was not finite. The part that it belongs to took no step.
        """
        figures: dict[str, float] = {}
        # Layers such as dropout draw from torch's own generators: theirs are seeded too, and put back.
        with torch.random.fork_rng(devices=[self.device] if self.device.startswith("cuda") else []):
            for tuned in self.parts:
                if (self.step + 1) % tuned.part.every == 0:
                    for turn in range(tuned.part.repeats):
                        figures.update(self._turn(tuned, turn))
        decay = self.recipe.decay(self.step)
        torch._foreach_lerp_(self.average, [p.detach() for p in self._list], 1 - decay)
        self._batches.clear()
        self._stepped = False
        self.step += 1
        return figures

    def _turn(self, tuned: Tuned, turn: int) -> dict[str, float]:
        mine = list(tuned.parameters.values())
        self._freeze_others(tuned)
        found = self._gradients(tuned, turn)
        gradients = [p.grad for p in mine if p.grad is not None]
        self.replicas.average(gradients)
        norm = nn.utils.clip_grad_norm_(mine, tuned.clip or math.inf)
        prefix = f"{tuned.part.name}_" if len(self.parts) > 1 else ""
        figures = {f"{prefix}loss": found.pop("loss"), f"{prefix}norm": norm.item(), **found}
        for name in (f"{prefix}loss", f"{prefix}norm"):
            if not math.isfinite(figures[name]):
                raise Diverged(self.step, name, figures[name], whole=not self._stepped)
        for group in tuned.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.step) * tuned.share
        self._stepped = True
        tuned.optimiser.step()
        tuned.optimiser.zero_grad(set_to_none=True)
        after = getattr(self.task, "after", None)
        if after is not None:
            with torch.no_grad():
                after(tuned.part.name)
        return figures

    def _gradients(self, tuned: Tuned, turn: int) -> dict[str, float]:
        """Mean gradients of the accumulated batches, and the mean figures."""
        tuned.optimiser.zero_grad(set_to_none=True)
        count, means = self.recipe.accumulate, Means()
        for micro in range(count):
            batch = self._batch((self.step * self._turns + turn) * count + micro)
            place = (tuned.number, turn, micro)
            generator = step_generator(
                self.recipe.seed, self.step, self.replicas.rank, self.device,
                "".join(f"/{n}" for n in place) if any(place) else "",
            )  # fmt: skip
            seed_layers(generator.initial_seed(), self.device)
            with torch.autocast(
                torch.device(self.device).type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"
            ):
                loss, figures = self.task.loss(batch, tuned.part.name, generator)
            (loss if count == 1 else loss / count).backward()
            means.add({"loss": loss.item(), **{name: float(value) for name, value in figures.items()}})
        return means.take()

    def _freeze_others(self, tuned: Tuned) -> None:
        if len(self.parts) > 1:
            for other in self.parts:
                for parameter in other.parameters.values():
                    parameter.requires_grad_(other is tuned)

    def _batch(self, number: int) -> Any:
        """Parts share the batches of a step."""
        if number not in self._batches:
            self._batches[number] = _moved(self.task.batch(number, self.replicas.rank), self.device)
        return self._batches[number]

    def averaged(self) -> _Swapped:
        """Context manager: the modules hold the averaged weights inside, and are in evaluation mode."""
        return _Swapped(self)

    def rest(self) -> dict[str, Tensor]:
        """Buffers and untuned parameters by name: `after` or a layer may change them."""
        return {
            f"{name}.{key}": value.detach()
            for name, module in self.task.modules.items()
            for key, value in (*module.named_parameters(), *module.named_buffers())
            if f"{name}.{key}" not in self.parameters
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resumed run needs: tensors by name, and JSON values."""
        tensors = {f"rest/{name}": value.contiguous() for name, value in self.rest().items()}
        for (name, parameter), average in zip(self.parameters.items(), self.average, strict=True):
            tensors[f"weight/{name}"] = parameter.detach().contiguous()
            tensors[f"average/{name}"] = average.contiguous()
        for tuned in self.parts:
            for name, parameter in tuned.parameters.items():
                for key, value in tuned.optimiser.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        tensors[f"optimiser/{key}/{name}"] = value.contiguous()
        return tensors, {"step": self.step, "seed": self.recipe.seed}

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Continue from `state()`. Raises: KeyError: a parameter that the state lacks."""
        moments: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser/"):
                _, key, parameter_name = name.split("/", 2)
                moments.setdefault(parameter_name, {})[key] = value
        with torch.no_grad():
            for name, value in self.rest().items():
                value.copy_(tensors[f"rest/{name}"])
            for (name, parameter), average in zip(self.parameters.items(), self.average, strict=True):
                parameter.copy_(tensors[f"weight/{name}"])
                average.copy_(tensors[f"average/{name}"])
        for tuned in self.parts:
            for name, parameter in tuned.parameters.items():
                # Fused optimisers count their steps on the device, the others on the CPU.
                place = parameter.device if tuned.optimiser.defaults.get("fused") else "cpu"
                found = moments.get(name, {}).items()
                kept = {key: _laid_out_as(value, parameter, place) for key, value in found}
                if kept:
                    tuned.optimiser.state[parameter] = kept
        self.step = int(meta["step"])


def _laid_out_as(value: Tensor, parameter: Tensor, place: Any) -> Tensor:
    """A copy with the parameter's strides, as fused optimisers walk memory side by side; counts go to `place`."""
    if value.shape == parameter.shape:
        return torch.empty_like(parameter).copy_(value)
    return value.detach().to(place, copy=True)


def _moved(batch: Any, device: str) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _moved(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [_moved(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


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
        self._modes = [(m, m.training) for root in self.trainer.task.modules.values() for m in root.modules()]
        for module, _ in self._modes:
            module.training = False
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()
        for module, training in self._modes:
            module.training = training
