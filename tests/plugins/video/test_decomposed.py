"""VideoFusion: the noise that frames share, exact models put together, and one question to the base."""

from __future__ import annotations

import math

import pytest
import torch

from mezzotint import Conditioning, NoiseLevel, NoiseSchedule, Prediction, UserError
from mezzotint.testing import denoiser
from mezzotint.testing.gaussian import GaussianPredictor
from mezzotint_sampling.nodes import noise
from mezzotint_sampling.noise import frame_normals
from mezzotint_video.decomposed import DecomposedPredictor, decompose, residual_level
from mezzotint_video.frame_noise import related_frames

SCHEDULE = NoiseSchedule(prediction="v")
LEVEL = NoiseLevel(0.6, 0.8, 500.0)


class Oracle:
    """Knows the clip: says its noise exactly."""

    schedule = SCHEDULE

    def __init__(self, clean: torch.Tensor) -> None:
        self.clean, self.asked = clean, []

    def predict(self, x: torch.Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        self.asked.append((tuple(x.shape), level))
        clean = self.clean if x.ndim == 5 else self.clean[:, :, self.clean.shape[2] // 2]
        eps = (x - level.alpha * clean) / level.sigma
        return Prediction((level.alpha * eps - level.sigma * clean,), (1.0,), "v")


@pytest.mark.parametrize("frames", [5, 8])
def test_residual_noise_is_mixed_around_a_middle_frame_with_the_shared_part_alone(frames: int) -> None:
    made = frame_normals(noise(seed=3, frames="residual", correlation=0.5), (2, 4, frames, 64, 64), 0)
    flat = made.transpose(1, 2).flatten(2)[0]
    found = torch.corrcoef(flat)
    assert torch.allclose(flat.var(1), torch.ones(frames), atol=0.05)
    middle = frames // 2
    others = [f for f in range(frames) if f != middle]
    assert torch.allclose(found[middle, others], torch.full((frames - 1,), math.sqrt(0.5)), atol=0.03)
    off = found[others][:, others][~torch.eye(frames - 1, dtype=torch.bool)]
    assert torch.allclose(off, torch.full_like(off, 0.5), atol=0.03)


@pytest.mark.parametrize(
    ("frames", "near", "far"),
    [
        ("independent", 0, 0),
        ("shared", 1, 1),
        ("mixed", 0.6, 0.6),
        ("progressive", 0.6, 0.36),
        ("residual", 0.6, 0.6),
    ],
)
def test_noise_of_training_is_related_as_that_of_sampling(frames: str, near: float, far: float) -> None:
    made = related_frames((1, 8, 4, 64, 64), frames, 0.6, torch.Generator().manual_seed(0))
    found = torch.corrcoef(made[0].flatten(1))
    assert found[0, 1] == pytest.approx(near, abs=0.03) and found[0, 2] == pytest.approx(far, abs=0.03)
    assert torch.allclose(made.flatten(2).var(2), torch.ones(1, 8), atol=0.05)


def test_exact_models_of_both_parts_give_the_exact_clip_and_the_base_is_asked_once() -> None:
    clean = torch.randn(2, 4, 5, 8, 8, dtype=torch.float64)
    eps = frame_normals(noise(seed=1, frames="residual", correlation=0.3), clean.shape, 0).double()
    base, residual = Oracle(clean), Oracle(clean)
    x = LEVEL.alpha * clean + LEVEL.sigma * eps
    made = DecomposedPredictor(base, residual, 0.3).predict(x, LEVEL, Conditioning())
    x0 = LEVEL.alpha * x - LEVEL.sigma * made.combined()
    assert torch.allclose(x0, clean, atol=1e-10)
    assert [shape for shape, _ in base.asked] == [(2, 4, 8, 8)]
    assert len(residual.asked) == 1


def test_the_residual_model_sees_frames_at_the_level_that_they_are_at() -> None:
    """Unit-variance data stay of unit variance, and the signal is what the level says."""
    there, scale = residual_level(LEVEL, SCHEDULE, 0.5)
    assert there.alpha**2 + there.sigma**2 == pytest.approx(1)
    assert there.sigma / there.alpha == pytest.approx(0.8 * math.sqrt(0.5) / 0.6)
    assert there.alpha * scale == pytest.approx(0.6) and there.time < LEVEL.time
    same, one = residual_level(LEVEL, SCHEDULE, 0.0)
    assert one == pytest.approx(1) and same.sigma == pytest.approx(0.8)


def test_without_correlation_it_is_the_ordinary_model_of_clips() -> None:
    x = torch.randn(2, 4, 5, 8, 8, dtype=torch.float64)
    model = GaussianPredictor(0.3, 0.5, SCHEDULE)
    level = NoiseLevel(0.6, 0.8, 500.0)
    plain = model.predict(x, level, None).combined()
    assert torch.allclose(
        DecomposedPredictor(model, model, 0.0).predict(x, level, None).combined(), plain, atol=1e-9
    )


def test_with_the_whole_noise_shared_all_frames_have_the_noise_of_the_base() -> None:
    clean = torch.randn(1, 4, 1, 8, 8, dtype=torch.float64).expand(1, 4, 5, 8, 8)
    x = LEVEL.alpha * clean + LEVEL.sigma * torch.randn(1, 4, 1, 8, 8, dtype=torch.float64)
    made = DecomposedPredictor(Oracle(clean), Oracle(clean * 0), 1.0).predict(x, LEVEL, None).combined()
    assert torch.allclose(LEVEL.alpha * x - LEVEL.sigma * made, clean, atol=1e-10)


def test_models_that_do_not_belong_together_and_pictures_are_refused() -> None:
    with pytest.raises(UserError, match="wanted both on the same latents"):
        decompose(denoiser(), denoiser().replace(channels=3))
    model = GaussianPredictor(0.0, 1.0, SCHEDULE)
    with pytest.raises(UserError, match="wanted clips"):
        DecomposedPredictor(model, model, 0.5).predict(torch.zeros(1, 4, 8, 8), LEVEL, None)


def test_the_two_models_never_share_a_loaded_network() -> None:
    base = denoiser()
    patch = decompose(base, base).patches[-1]
    assert patch.residual.config != base.config
