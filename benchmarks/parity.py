"""Our samplers beside diffusers' and k-diffusion's: the same model, levels and noise, step by step.

`python benchmarks/parity.py --write docs/parity.md` makes the table. An error is the largest
difference of the samples that the model is asked about, and of the last one, over the size of the
sample. All samples are compared as x / alpha. k-diffusion is measured only where it is installed:
`make parity` does that, without what it needs for training.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from mezzotint import NoiseSchedule, Prediction, Sigmas
from mezzotint_kernels import normals
from mezzotint_sampling.run import run
from mezzotint_sampling.schedule import alphas_cumprod
from mezzotint_sampling.sigmas import make_sigmas

SHAPE = (2, 3, 4, 4)
STEPS = 9
SCHEDULES = ("uniform", "simple", "karras", "exponential", "beta")
STABLE = NoiseSchedule()
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
BOUNDS = {"float64": 1e-5, "float32": 1e-4}


@dataclass
class Model:
    """A fixed nonlinear eps of y = x / alpha and of sigma / alpha; remembers what it was asked."""

    channels_twice: bool = False
    schedule: NoiseSchedule = STABLE
    asked: list[Tensor] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def eps(self, y: Tensor, ratio: float) -> Tensor:
        self.asked.append(y)
        self.ratios.append(float(ratio))
        u = y / (1 + ratio**2) ** 0.5
        shifted = torch.roll(u, 1, dims=-1) + 0.5 * torch.roll(u, 1, dims=-2)
        return 0.8 * torch.tanh(u) + 0.3 * torch.sin(shifted + np.log1p(ratio))

    def variance(self, y: Tensor) -> Tensor:
        return torch.sin(3 * torch.roll(y, 1, dims=-1))

    def predict(self, x: Tensor, level: Any, conditioning: Any) -> Prediction:
        if self.schedule.kind == "flow":
            # y has no size at pure noise; the model is one of x there, and predicts eps - x0.
            self.asked.append(x)
            self.ratios.append(level.sigma)
            return Prediction((self.flow(x, level.sigma),), (1.0,), "flow")
        y = x / level.alpha
        eps = self.eps(y, level.sigma / level.alpha)
        return Prediction((eps,), (1.0,), "eps", variance=self.variance(y) if self.channels_twice else None)

    def flow(self, x: Tensor, sigma: float) -> Tensor:
        return 0.8 * torch.tanh(x) + 0.3 * torch.sin(torch.roll(x, 1, dims=-1) + sigma)


class Draws:
    """One sequence of noise tensors; both sides take the next one when they add noise."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.count = 0
        self.silent = False

    def next(self, *arguments: Any, **named: Any) -> Tensor:
        self.count += 1
        if self.silent:
            return torch.zeros(SHAPE, dtype=self.dtype)
        return normals(3, SHAPE, step=self.count, dtype=self.dtype)

    at = known = between = next


@dataclass(frozen=True)
class Case:
    """One comparison. theirs: (model, y or x, sigmas, ratios, draws) -> the last sample, as x / alpha."""

    sampler: str
    schedule: str
    peer: str
    dtype: str
    theirs: Callable[..., Tensor] = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict)
    forward: NoiseSchedule = STABLE

    @property
    def label(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.sampler}({options})" if options else self.sampler


def error_of(case: Case) -> float:
    """The largest relative difference along the run. inf: another number of evaluations."""
    dtype = getattr(torch, case.dtype)
    is_flow = case.forward.kind == "flow"
    sigmas = make_sigmas(case.forward, STEPS if case.peer != "diffusers DDIM" else 10, case.schedule)
    x = normals(1, SHAPE, stream="start", dtype=dtype)
    twice = case.options.get("variance") == "learned"
    mine, other = Model(twice, case.forward), Model(twice, case.forward)
    end = run(case.sampler, mine, None, x, sigmas, Draws(dtype), options=case.options)
    first = x if is_flow else x / sigmas.alphas[0]
    their_end = case.theirs(other, first, sigmas, mine.ratios, Draws(dtype), **case.options)
    if len(mine.asked) != len(other.asked):
        return float("inf")
    pairs = [*zip(mine.asked, other.asked, strict=True), (end / sigmas.alphas[-1], their_end)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


# --- diffusers ---------------------------------------------------------------------------------


def scheduler_loop(
    name: str, scaled: bool, prepare: Callable[[Any, Sigmas], None], **config: Any
) -> Callable[..., Tensor]:
    """A diffusers scheduler. scaled: it works on x / alpha; else on x."""

    def loop(model: Model, y: Tensor, sigmas: Sigmas, ratios: list[float], draws: Draws, **options: Any) -> Tensor:
        import diffusers

        scheduler = getattr(diffusers, name)(**BETAS, **config)
        scheduler.set_timesteps(len(sigmas.sigmas) - 1)
        prepare(scheduler, sigmas)
        sample = y if scaled else y * sigmas.alphas[0]
        step = {k: v for k, v in options.items() if k == "eta"}
        module = sys.modules[type(scheduler).__module__]
        drawn = mock.patch.object(module, "randn_tensor", draws.next) if hasattr(module, "randn_tensor") else None
        with drawn or mock.MagicMock():
            for i, time in enumerate(scheduler.timesteps):
                # Their DDPM noises the last picture too, unless it is made at time 0: ours never does.
                draws.silent = name == "DDPMScheduler" and i == len(scheduler.timesteps) - 1
                asked = sample if scaled else sample * (1 + ratios[i] ** 2) ** 0.5
                out = model.eps(asked, ratios[i])
                if model.channels_twice:
                    out = torch.cat((out, model.variance(asked)), dim=1)
                scheduler.scale_model_input(sample, time)
                sample = scheduler.step(out, time, sample, **step).prev_sample
        return sample

    return loop


def exact_sigmas(scheduler: Any, sigmas: Sigmas) -> None:
    """Ours in place of the float32 numbers, so that float64 can be compared."""
    scheduler.sigmas = torch.tensor(sigmas.sigmas, dtype=torch.float64) / torch.tensor(
        sigmas.alphas, dtype=torch.float64
    )


def exact_heun_sigmas(scheduler: Any, sigmas: Sigmas) -> None:
    exact_sigmas(scheduler, sigmas)
    s = scheduler.sigmas
    scheduler.sigmas = torch.cat([s[:1], s[1:-1].repeat_interleave(2), s[-1:]])


def exact_table(scheduler: Any, sigmas: Sigmas) -> None:
    scheduler.alphas_cumprod = torch.from_numpy(alphas_cumprod(STABLE).copy())
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    scheduler.timesteps = torch.tensor([int(t) for t in sigmas.times[:-1]])
    scheduler.custom_timesteps = True


def interpolated_sigmas(scheduler: Any, sigmas: Sigmas) -> None:
    """DPM2's: each level twice, the middles, and for the ancestral form where the steps go."""
    s = torch.tensor(sigmas.sigmas, dtype=torch.float64) / torch.tensor(sigmas.alphas, dtype=torch.float64)

    def double(values: Tensor) -> Tensor:
        return torch.cat([values[:1], values[1:].repeat_interleave(2), values[-1:]])

    if hasattr(scheduler, "sigmas_up"):
        up = (s[1:] ** 2 * (s[:-1] ** 2 - s[1:] ** 2) / s[:-1] ** 2).sqrt()
        down = torch.cat([(s[1:] ** 2 - up**2).sqrt(), s.new_zeros(1)])
        middles = torch.cat([(s[:-1].log() + down[:-1].log()).div(2).exp(), s.new_zeros(1)])
        middles[-2:] = 0
        scheduler.sigmas_down, scheduler.sigmas_up = double(down), double(torch.cat([up, s.new_zeros(1)]))
        scheduler.sigmas_interpol = double(middles)
    else:
        middles = s.log().lerp(s.roll(1).log(), 0.5).exp()
        scheduler.sigmas_interpol = double(middles)
    scheduler.sigmas = double(s)


def ipndm_loop(
    model: Model, y: Tensor, sigmas: Sigmas, ratios: list[float], draws: Draws, **options: Any
) -> Tensor:
    """diffusers' takes v-prediction and pairs (alpha, sigma) directly."""
    import diffusers

    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(len(sigmas.sigmas) - 1)
    scheduler.betas = torch.tensor(sigmas.sigmas, dtype=torch.float64)
    scheduler.alphas = torch.tensor(sigmas.alphas, dtype=torch.float64)
    sample = y * sigmas.alphas[0]
    for i, time in enumerate(scheduler.timesteps):
        eps = model.eps(sample / sigmas.alphas[i], ratios[i])
        v = (eps - sigmas.sigmas[i] * sample) / sigmas.alphas[i]
        sample = scheduler.step(v, time, sample).prev_sample
    return sample


def flow_loop(name: str) -> Callable[..., Tensor]:
    def loop(model: Model, x: Tensor, sigmas: Sigmas, ratios: list[float], draws: Draws, **options: Any) -> Tensor:
        import diffusers

        scheduler = getattr(diffusers, name)()
        steps = len(sigmas.sigmas) - 1
        scheduler.set_timesteps(steps)
        s = torch.tensor(sigmas.sigmas, dtype=torch.float64)
        if "Heun" in name:
            s = torch.cat([s[:1], s[1:-1].repeat_interleave(2), s[-1:]])
            scheduler.timesteps = torch.arange(len(s) - 1.0, 0, -1)
        scheduler.sigmas = s
        for i, time in enumerate(scheduler.timesteps):
            model.asked.append(x)
            x = scheduler.step(model.flow(x, ratios[i]), time, x).prev_sample
        return x

    return loop


def diffusers_cases() -> Iterator[Case]:
    """Float64 where the scheduler computes in it; float32 for those that go down to it."""
    whole = ("uniform", "simple")
    multi = {"final_sigmas_type": "zero"}
    solver = {**multi, "algorithm_type": "dpmsolver++"}
    full = {"lower_order_final": False}
    of = scheduler_loop
    table = [
        ("ddim", {}, "DDIM", "float64", ("uniform",), {},
         of("DDIMScheduler", False, exact_table, clip_sample=False)),
        ("ddim", {"eta": 1.0}, "DDIM", "float64", ("uniform",), {},
         of("DDIMScheduler", False, exact_table, clip_sample=False)),
        *(
            ("ddpm", {"variance": ours}, "DDPM", "float64", whole, {},
             of("DDPMScheduler", False, exact_table, clip_sample=False, variance_type=theirs))
            for ours, theirs in (("small", "fixed_small"), ("large", "fixed_large"), ("learned", "learned_range"))
        ),
        ("lcm", {}, "LCM", "float64", whole, {}, of("LCMScheduler", False, exact_table, clip_sample=False)),
        ("euler", {}, "Euler", "float32", SCHEDULES, {}, of("EulerDiscreteScheduler", True, exact_sigmas)),
        ("euler_ancestral", {}, "EulerAncestral", "float32", SCHEDULES, {},
         of("EulerAncestralDiscreteScheduler", True, exact_sigmas)),
        ("heun", {}, "Heun", "float64", SCHEDULES, {}, of("HeunDiscreteScheduler", True, exact_heun_sigmas)),
        ("dpm_2", {}, "KDPM2", "float64", SCHEDULES, {}, of("KDPM2DiscreteScheduler", True, interpolated_sigmas)),
        ("dpm_2_ancestral", {}, "KDPM2Ancestral", "float64", SCHEDULES, {},
         of("KDPM2AncestralDiscreteScheduler", True, interpolated_sigmas)),
        ("lms", {}, "LMS", "float64", SCHEDULES, {}, of("LMSDiscreteScheduler", True, exact_sigmas)),
        ("dpmpp_2m", {}, "DPMSolverMultistep", "float64", SCHEDULES, {},
         of("DPMSolverMultistepScheduler", False, exact_sigmas, **solver)),
        ("dpmpp_3m", {}, "DPMSolverMultistep", "float64", SCHEDULES, {},
         of("DPMSolverMultistepScheduler", False, exact_sigmas, **solver, **full, solver_order=3,
            solver_type="heun")),
        ("dpmpp_2m_sde", {}, "DPMSolverMultistep", "float64", SCHEDULES, {},
         of("DPMSolverMultistepScheduler", False, exact_sigmas, **multi, algorithm_type="sde-dpmsolver++")),
        ("dpmpp_2m_sde", {"solver": "heun"}, "DPMSolverMultistep", "float64", SCHEDULES, {},
         of("DPMSolverMultistepScheduler", False, exact_sigmas, **multi, algorithm_type="sde-dpmsolver++",
            solver_type="heun")),
        *(
            ("deis", {"order": order}, "DEISMultistep", "float64", SCHEDULES, {},
             of("DEISMultistepScheduler", False, exact_sigmas, solver_order=order))
            for order in (2, 3)
        ),
        *(
            ("unipc", {"order": order, "solver": kind}, "UniPCMultistep", "float64", SCHEDULES, {},
             of("UniPCMultistepScheduler", False, exact_sigmas, **multi, solver_order=order, solver_type=kind))
            for order in (1, 2, 3) for kind in ("bh1", "bh2")
        ),
        ("ipndm", {}, "IPNDM", "float64", SCHEDULES, {}, ipndm_loop),
        ("euler", {}, "FlowMatchEuler", "float32", ("uniform", "karras"), {"kind": "flow", "prediction": "flow"},
         flow_loop("FlowMatchEulerDiscreteScheduler")),
        ("heun", {}, "FlowMatchHeun", "float32", ("uniform", "karras"), {"kind": "flow", "prediction": "flow"},
         flow_loop("FlowMatchHeunDiscreteScheduler")),
    ]  # fmt: skip
    for sampler, options, peer, dtype, schedules, forward, theirs in table:
        for schedule in schedules:
            yield Case(sampler, schedule, f"diffusers {peer}", dtype, theirs, options, NoiseSchedule(**forward))


# --- k-diffusion -------------------------------------------------------------------------------


@functools.cache
def k_sampling() -> types.ModuleType | None:
    """k_diffusion.sampling on its own: the package's front imports what training needs (wandb, kornia)."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None or not all(importlib.util.find_spec(name) for name in ("torchsde", "torchdiffeq")):
        return None
    package: Any = types.ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations or [])
    # Of its own utils the samplers take `append_dims` alone; the rest wants torchvision.
    utils: Any = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    package.utils = utils
    sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils})
    return importlib.import_module("k_diffusion.sampling")


def k_loop(name: str, noise: bool = False) -> Callable[..., Tensor]:
    def loop(model: Model, y: Tensor, sigmas: Sigmas, ratios: list[float], draws: Draws, **options: Any) -> Tensor:
        sampling = k_sampling()
        if "solver" in options:
            options["solver_type"] = options.pop("solver")

        def denoised(at: Tensor, sigma: Tensor) -> Tensor:
            return at - sigma[0] * model.eps(at, float(sigma[0]))

        levels = torch.tensor(sigmas.sigmas, dtype=torch.float64) / torch.tensor(
            sigmas.alphas, dtype=torch.float64
        )
        more = {"noise_sampler": draws.next} if noise else {}
        function = getattr(sampling, f"sample_{name}")
        return function(denoised, y, levels.to(y), disable=True, **more, **options)

    return loop


def k_cases() -> Iterator[Case]:
    sde = {"eta": 0.5}
    table: list[tuple[str, str, bool, dict[str, Any]]] = [
        ("euler", "euler", False, {}),
        ("euler_ancestral", "euler_ancestral", True, {}),
        ("euler_ancestral", "euler_ancestral", True, sde),
        ("heun", "heun", False, {}),
        ("dpm_2", "dpm_2", False, {}),
        ("dpm_2_ancestral", "dpm_2_ancestral", True, {}),
        ("dpm_2_ancestral", "dpm_2_ancestral", True, sde),
        ("lms", "lms", False, {}),
        ("dpmpp_2m", "dpmpp_2m", False, {}),
        ("dpmpp_2s_ancestral", "dpmpp_2s_ancestral", True, {}),
        ("dpmpp_2s_ancestral", "dpmpp_2s_ancestral", True, sde),
        ("dpmpp_sde", "dpmpp_sde", True, {}),
        ("dpmpp_sde", "dpmpp_sde", True, sde),
        ("dpmpp_2m_sde", "dpmpp_2m_sde", True, {}),
        ("dpmpp_2m_sde", "dpmpp_2m_sde", True, {**sde, "solver": "heun"}),
        ("dpmpp_3m_sde", "dpmpp_3m_sde", True, {}),
        ("dpmpp_3m_sde", "dpmpp_3m_sde", True, sde),
    ]
    for sampler, name, noise, options in table:
        for schedule in SCHEDULES:
            yield Case(sampler, schedule, "k-diffusion", "float64", k_loop(name, noise), options)


def cases() -> list[Case]:
    return [*diffusers_cases(), *(k_cases() if k_sampling() is not None else ())]


def table(results: list[tuple[Case, float]]) -> str:
    """Markdown: one row a sampler and peer, one column a schedule."""
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for case, error in results:
        rows.setdefault((case.label, case.peer, case.dtype), {})[case.schedule] = error
    lines = [
        "| sampler | peer | dtype | " + " | ".join(SCHEDULES) + " |",
        "|---|---|---|" + "---|" * len(SCHEDULES),
    ]
    for (label, peer, dtype), errors in rows.items():
        cells = [f"{errors[name]:.0e}" if name in errors else "" for name in SCHEDULES]
        lines.append(f"| {label} | {peer} | {dtype} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the page whose table is made anew")
    arguments = parser.parse_args()
    if k_sampling() is None:
        missing = "k-diffusion is not installed, and its rows are missing: make parity"
        if arguments.write:
            sys.exit(missing)
        print(missing, file=sys.stderr)
    results = [(case, error_of(case)) for case in cases()]
    made = table(results)
    print(made)
    if arguments.write:
        before, _ = arguments.write.read_text().split("| sampler | peer |", 1)
        arguments.write.write_text(before + made + "\n")
    worse = [case.label for case, error in results if not error < BOUNDS[case.dtype]]
    if worse:
        sys.exit(f"beyond the bound: {', '.join(worse)}")


if __name__ == "__main__":
    main()
