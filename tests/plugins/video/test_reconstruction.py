"""Known frames: against the exact conditional of a Gaussian whose two frames belong together."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Conditioning, Latents, NoiseLevel, NoiseSchedule, Prediction, UserError
from mezzotint.testing import denoiser, fake_context
from mezzotint_sampling.nodes import noise, sigmas
from mezzotint_sampling.sampler_node import sample
from mezzotint_video.reconstruction import KnownFrames, KnownFramesPredictor, keep_frames

TOGETHER = 0.9  # correlation of the two frames, each N(0, 1)


class Pair:
    """The exact model of clips of two frames [B, 1, 2, 1, 1]."""

    schedule = NoiseSchedule(prediction="x0")

    def predict(self, x: torch.Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        covariance = torch.tensor([[1.0, TOGETHER], [TOGETHER, 1.0]], dtype=x.dtype)
        spread = level.alpha**2 * covariance + level.sigma**2 * torch.eye(2, dtype=x.dtype)
        gain = level.alpha * covariance @ torch.linalg.inv(spread)
        x0 = torch.einsum("fg,bcghw->bcfhw", gain, x)
        return Prediction((x0,), (1.0,), "x0")


def drawn(weight: float, known: float = 1.5, count: int = 4000, steps: int = 100) -> torch.Tensor:
    """Second frames [count], by ancestral sampling (DDPM) in float64."""
    from mezzotint_sampling import alphas_cumprod

    model = KnownFramesPredictor(
        Pair(), KnownFrames(torch.full((1, 1, 1, 1, 1), known, dtype=torch.float64), (0,), weight)
    )
    products = torch.from_numpy(
        alphas_cumprod(NoiseSchedule(kind="linear", beta_start=1e-4, beta_end=0.02)).copy()
    )
    times = torch.linspace(999, 0, steps).round().long().tolist()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, 2, 1, 1, generator=generator, dtype=torch.float64)
    for place, time in enumerate(times):
        here = products[time]
        there = products[times[place + 1]] if place + 1 < steps else torch.tensor(1.0, dtype=torch.float64)
        level = NoiseLevel(float(here.sqrt()), float((1 - here).sqrt()), float(time), place, steps)
        x0 = model.predict(x, level, None).combined()
        step = here / there
        mean = (there.sqrt() * (1 - step) * x0 + step.sqrt() * (1 - there) * x) / (1 - here)
        spread = ((1 - there) / (1 - here) * (1 - step)).sqrt()
        x = mean + spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    assert torch.allclose(x[:, 0, 0], torch.full_like(x[:, 0, 0], known), atol=1e-6)
    return x[:, 0, 1, 0, 0]


def test_reconstruction_guidance_comes_nearer_to_the_true_conditional_than_replacing_alone() -> None:
    truth = TOGETHER * 1.5
    replaced, guided, more = (abs(float(drawn(weight).mean()) - truth) for weight in (0.0, 1.0, 2.0))
    assert more < guided < replaced and replaced > 0.2


def test_the_guided_frame_is_the_formula_of_the_paper() -> None:
    """x~b = x^b - w alpha / 2 d|xa - x^a|^2 / dzb, by hand for the linear model."""
    level = NoiseLevel(0.8, 0.6, 100.0)
    x = torch.tensor([0.3, -0.4], dtype=torch.float64).view(1, 1, 2, 1, 1)
    known = torch.tensor(1.5, dtype=torch.float64).view(1, 1, 1, 1, 1)
    covariance = torch.tensor([[1, TOGETHER], [TOGETHER, 1]], dtype=torch.float64)
    gain = 0.8 * covariance @ torch.linalg.inv(0.64 * covariance + 0.36 * torch.eye(2, dtype=torch.float64))
    plain = gain @ x.flatten()
    wanted = plain[1] - 2.0 * 0.8 / 2 * (-2 * (1.5 - plain[0]) * gain[0, 1])
    made = KnownFramesPredictor(Pair(), KnownFrames(known, (0,), 2.0)).predict(x, level, None).combined().flatten()
    assert torch.allclose(made, torch.stack([known.flatten()[0], wanted]), atol=1e-12)


def test_known_frames_come_out_of_a_sampler_as_they_are() -> None:
    model = denoiser(mean=0.2, std=0.5)
    known = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    kept = keep_frames(model, Latents(known), frames=[0, 3], weight=0.0)
    made = sample(
        fake_context(), kept, Conditioning(), Latents(torch.zeros(2, 4, 5, 8, 8)), sigmas(model, steps=6),
        noise(seed=3), sampler="ddim",
    )  # fmt: skip
    assert torch.allclose(made.data[:, :, [0, 3]], known.expand(2, -1, -1, -1, -1), atol=1e-5)
    assert not torch.allclose(made.data[:, :, 1], made.data[:, :, 0], atol=0.1)


def test_a_picture_is_one_known_frame() -> None:
    kept = keep_frames(denoiser(), Latents(torch.zeros(1, 4, 8, 8)))
    assert kept.patches[-1].frames == (0,) and kept.patches[-1].known.shape == (1, 4, 1, 8, 8)


@pytest.mark.parametrize(
    ("shape", "frames", "told"),
    [
        ((1, 4, 2, 8, 8), [0], r"2 frames are known, and their places are \[0\]"),
        ((1, 4, 2, 8, 8), [1, 1], "none twice"),
    ],
)
def test_places_that_do_not_fit_the_frames_are_refused(
    shape: tuple[int, ...], frames: list[int], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        keep_frames(denoiser(), Latents(torch.zeros(shape)), frames=frames)


@pytest.mark.parametrize(
    ("shape", "frames", "told"),
    [
        ((1, 4, 1, 8, 8), (5,), "frame 5 is to be known, and the clips have 5"),
        ((1, 4, 1, 4, 8), (0,), "same channels and sizes"),
        ((3, 4, 1, 8, 8), (0,), "one of them or one for each clip"),
    ],
)
def test_known_frames_of_another_size_are_refused(
    shape: tuple[int, ...], frames: tuple[int, ...], told: str
) -> None:
    model = KnownFramesPredictor(Pair(), KnownFrames(torch.zeros(shape), frames))
    with pytest.raises(UserError, match=told):
        model.predict(torch.zeros(2, 4, 5, 8, 8), NoiseLevel(0.8, 0.6, 10.0), None)
