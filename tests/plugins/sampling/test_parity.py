"""Step by step against diffusers' schedulers: the same model, the same noise, the same samples."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from mezzotint import Noise, NoiseSchedule, Sigmas
from mezzotint_kernels import normals
from mezzotint_sampling.noise import numbers_of, starting_point
from mezzotint_sampling.run import levels_of, run
from mezzotint_sampling.schedule import alphas_cumprod
from mezzotint_sampling.sigmas import make_sigmas

SETTINGS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SHAPE = (2, 3, 8, 8)
STEPS = 11
# Their DDIM steps down by 1000 // steps whatever the next time is: right where that divides.
DDIM_STEPS = 10


class Given:
    """Noise tensors by draw, the same for both sides."""

    def at(self, draw: int) -> Tensor:
        return normals(3, SHAPE, step=draw, dtype=torch.float64)

    known = at

    def between(self, draw: int, here: Any, there: Any) -> Tensor:
        return self.at(draw)


def start(dtype: torch.dtype) -> Tensor:
    return normals(1, SHAPE, stream="start", dtype=dtype)


def ours(sampler: str, model: Any, sigmas: Sigmas, x: Tensor, noise: Any = None, **options: float) -> list[Tensor]:
    """The sample after each model evaluation."""
    samples: list[Tensor] = []
    clip = options.pop("clip", None)
    run(
        sampler, model, None, x, sigmas, noise or Given(),
        on_state=lambda state, _: samples.append(state.x), clip=clip, options=options,
    )  # fmt: skip
    return samples


def theirs(scheduler: Any, model: Any, x: Tensor, alpha: float = 1.0, **step: Any) -> list[Tensor]:
    """The same from diffusers. alpha: of the first level, for schedulers that work on x / alpha."""
    x = x / alpha
    samples = []
    for i, time in enumerate(scheduler.timesteps):
        out = model.output(scheduler.scale_model_input(x, time).to(x.dtype), float(time))
        named = {name: make(i) for name, make in step.items()}
        x = scheduler.step(out, time, x, **named).prev_sample
        samples.append(x)
    return samples


def largest_error(mine: list[Tensor], other: list[Tensor], alphas: Any = None) -> float:
    """Relative to the size of the sample; ours are divided by alpha where theirs are."""
    assert len(mine) == len(other)
    scales = [1.0] * len(mine) if alphas is None else alphas
    return max(
        float((a / scale - b).abs().max() / b.abs().max()) for a, b, scale in zip(mine, other, scales, strict=True)
    )


def exact_table(scheduler: Any) -> Any:
    """Their table is a float32 one; with ours in its place float64 samples can be compared."""
    scheduler.alphas_cumprod = torch.from_numpy(alphas_cumprod(NoiseSchedule()).copy())
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


def given_noise(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Have a scheduler that draws its own noise draw ours; the draws begin with 1."""
    draws = iter(range(1, 1000))

    def drawn(shape: Any, *arguments: Any, dtype: torch.dtype, **rest: Any) -> Tensor:
        return Given().at(next(draws)).to(dtype)

    monkeypatch.setattr(f"diffusers.schedulers.{module}.randn_tensor", drawn)


BOUNDS = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("kind", list(NAMES))
def test_ddim(kind: str, eta: float, dtype: torch.dtype, random_model: Any) -> None:
    scheduler = diffusers.DDIMScheduler(
        **SETTINGS, prediction_type=NAMES[kind], timestep_spacing="trailing", clip_sample=False
    )
    scheduler = exact_table(scheduler) if dtype == torch.float64 else scheduler
    scheduler.set_timesteps(DDIM_STEPS)
    model, x = random_model(kind), start(dtype)
    mine = ours("ddim", model, make_sigmas(NoiseSchedule(), DDIM_STEPS), x, eta=eta)
    noise = {"variance_noise": lambda i: Given().at(i + 1).to(dtype)} if eta else {}
    other = theirs(scheduler, model, x, eta=lambda i: eta, **noise)
    assert largest_error(mine, other) < BOUNDS[dtype]


def test_ddim_with_clipping(random_model: Any) -> None:
    scheduler = exact_table(diffusers.DDIMScheduler(**SETTINGS, timestep_spacing="trailing", clip_sample=True))
    scheduler.set_timesteps(DDIM_STEPS)
    model, x = random_model("eps"), start(torch.float64)
    mine = ours("ddim", model, make_sigmas(NoiseSchedule(), DDIM_STEPS), x, clip=1.0)
    other = theirs(scheduler, model, x, use_clipped_model_output=lambda i: True)
    assert largest_error(mine, other) < 1e-9


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("kind", list(NAMES))
def test_ddpm(kind: str, clip: float | None, dtype: torch.dtype, random_model: Any, monkeypatch: Any) -> None:
    scheduler = diffusers.DDPMScheduler(
        **SETTINGS,
        prediction_type=NAMES[kind],
        timestep_spacing="trailing",
        clip_sample=clip is not None,
    )
    scheduler = exact_table(scheduler) if dtype == torch.float64 else scheduler
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(STEPS)
    given_noise(monkeypatch, "scheduling_ddpm")
    model, x = random_model(kind), start(dtype)
    options = {} if clip is None else {"clip": clip}
    mine = ours("ddpm", model, make_sigmas(NoiseSchedule(), STEPS), x, **options)
    other = theirs(scheduler, model, x)
    assert largest_error(mine, other) < BOUNDS[dtype]


SPACED = [("uniform", {"timestep_spacing": "trailing"}), ("karras", {"use_karras_sigmas": True})]


# Their Euler takes no x0 models, their ancestral Euler no Karras levels either.
KINDS_OF = {"euler": ("eps", "v"), "euler_ancestral": ("eps", "v"), "heun": tuple(NAMES)}


@pytest.mark.parametrize(
    ("sampler", "kind", "name", "config"),
    [
        (sampler, kind, name, config)
        for sampler, kinds in KINDS_OF.items()
        for kind in kinds
        for name, config in SPACED
        if (sampler, name) != ("euler_ancestral", "karras")
    ],
)
def test_euler_ancestral_euler_and_heun(
    sampler: str, kind: str, name: Any, config: Any, random_model: Any, monkeypatch: Any
) -> None:
    scheduler = {
        "euler": diffusers.EulerDiscreteScheduler,
        "euler_ancestral": diffusers.EulerAncestralDiscreteScheduler,
        "heun": diffusers.HeunDiscreteScheduler,
    }[sampler](**SETTINGS, prediction_type=NAMES[kind], **config)
    scheduler.set_timesteps(STEPS)
    given_noise(monkeypatch, "scheduling_euler_ancestral_discrete")
    model, sigmas = random_model(kind), make_sigmas(NoiseSchedule(), STEPS, name)
    sigmas = sigmas.replace(times=(*np.unique(scheduler.timesteps)[::-1].tolist(), 0.0))
    x = start(torch.float32) * sigmas.sigmas[0]
    mine = ours(sampler, model, sigmas, x)
    other = theirs(scheduler, model, x, sigmas.alphas[0])
    alphas = sigmas.alphas[1:]
    if sampler == "heun":
        alphas = np.repeat(alphas, 2)[:-1].tolist()
    assert largest_error(mine, other, alphas) < 1e-4


@pytest.mark.parametrize(("name", "config"), SPACED)
@pytest.mark.parametrize("kind", list(NAMES))
@pytest.mark.parametrize("dtype", list(BOUNDS))
def test_dpmpp_2m(dtype: torch.dtype, kind: str, name: Any, config: Any, random_model: Any) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **SETTINGS, prediction_type=NAMES[kind], algorithm_type="dpmsolver++", **config
    )
    scheduler.set_timesteps(STEPS)
    sigmas = make_sigmas(NoiseSchedule(), STEPS, name)
    # They round the times of Karras levels.
    sigmas = sigmas.replace(times=(*map(float, scheduler.timesteps), 0.0))
    if dtype == torch.float64:
        scheduler.sigmas = torch.tensor(sigmas.sigmas, dtype=dtype) / torch.tensor(sigmas.alphas)
    model, x = random_model(kind), start(dtype)
    mine, other = ours("dpmpp_2m", model, sigmas, x), theirs(scheduler, model, x)
    assert largest_error(mine, other) < {torch.float64: 1e-6, torch.float32: 1e-4}[dtype]


def test_flow_euler(random_model: Any) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 10, 10))
    model = random_model("flow")
    x = start(torch.float32)
    sigmas = make_sigmas(NoiseSchedule(kind="flow", prediction="flow", shift=3.0), 10)
    mine = ours("euler", model, sigmas, x)
    samples = []
    for time in scheduler.timesteps:
        x = scheduler.step(model.output(x, float(time)), time, x).prev_sample
        samples.append(x)
    assert largest_error(mine, samples) < 1e-4


def test_torch_noise_is_what_diffusers_draws_for_start_and_steps(random_model: Any) -> None:
    """One picture, seed 7: prepare_latents, then a stochastic scheduler with the same generator."""
    generator = torch.Generator("cpu").manual_seed(7)
    x = torch.randn((1, 3, 8, 8), generator=generator)
    scheduler = diffusers.DDIMScheduler(**SETTINGS, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(DDIM_STEPS)
    model = random_model("eps")
    other = theirs(scheduler, model, x, eta=lambda i: 1.0, generator=lambda i: generator)

    sigmas = make_sigmas(NoiseSchedule(), DDIM_STEPS)
    numbers = numbers_of(Noise(seed=7, kind="torch"), (1, 3, 8, 8))
    begin = starting_point(torch.zeros(1, 3, 8, 8), levels_of(sigmas)[0], numbers)
    assert torch.equal(begin, x)
    mine = ours("ddim", model, sigmas, begin, numbers, eta=1.0)
    assert largest_error(mine, other) < 1e-4
