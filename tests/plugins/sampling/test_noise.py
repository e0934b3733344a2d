"""Noise: how frames relate, the increments of one path, and that neither depends on who else is drawn."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint import Noise, NoiseLevel, UserError
from mezzotint_kernels import Draw
from mezzotint_sampling.noise import numbers_of
from mezzotint_sampling.run import run
from mezzotint_sampling.sigmas import make_sigmas

CLIP = (1, 4, 4, 32, 32)
SMALL = (2, 3, 4, 4)
KINDS = ("philox", "torch", "brownian")
FRAMES = ("independent", "shared", "mixed", "progressive")


def level(ratio: float) -> NoiseLevel:
    alpha = 0.0 if math.isinf(ratio) else 1 / math.hypot(1, ratio)
    return NoiseLevel(alpha, math.sqrt(1 - alpha**2), 0.0)


def snr(at: NoiseLevel) -> float:
    return (at.alpha / at.sigma) ** 2


def drawn(noise: Noise, shape: tuple[int, ...], draw: int = 1, pair: tuple[float, float] = (2.0, 1.0)) -> Tensor:
    found = numbers_of(noise, shape).between(draw, level(pair[0]), level(pair[1]))
    return found.normals(shape) if isinstance(found, Draw) else found


def correlations(clip: Tensor) -> Tensor:
    """Of the frames of [B, C, F, H, W], over all else."""
    return torch.corrcoef(clip.double().movedim(2, 0).flatten(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_mixed_frames_are_all_correlated_alike(kind: Any, correlation: float) -> None:
    found = correlations(drawn(Noise(1, kind, frames="mixed", correlation=correlation), CLIP))
    wanted = torch.full((4, 4), correlation, dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(found, wanted, atol=0.08, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_progressive_frames_forget_by_a_power(kind: Any, correlation: float) -> None:
    found = correlations(drawn(Noise(1, kind, frames="progressive", correlation=correlation), CLIP))
    apart = (torch.arange(4)[:, None] - torch.arange(4)).abs().double()
    torch.testing.assert_close(found, correlation**apart, atol=0.08, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", FRAMES)
def test_every_source_has_mean_zero_and_variance_one(kind: Any, frames: Any) -> None:
    found = drawn(Noise(1, kind, frames=frames), CLIP)
    assert found.dtype == torch.float32
    assert found.shape == CLIP
    per_frame = found.movedim(2, 0).flatten(1).double()
    assert per_frame.mean(1).abs().max() < 0.08
    assert (per_frame.std(1) - 1).abs().max() < 0.08


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", FRAMES)
def test_a_sample_is_the_same_alone_and_in_a_batch(kind: Any, frames: Any) -> None:
    batch = drawn(Noise(7, kind, frames=frames), (3, 2, 4, 5, 5))
    alone = drawn(Noise(8, kind, frames=frames), (1, 2, 4, 5, 5))
    assert torch.equal(batch[1:2], alone)


@pytest.mark.parametrize("kind", ["philox", "brownian"])
@pytest.mark.parametrize("frames", FRAMES)
def test_a_longer_clip_begins_with_the_same_frames(kind: Any, frames: Any) -> None:
    short, long = (drawn(Noise(7, kind, frames=frames), (2, 3, n, 5, 5)) for n in (3, 8))
    assert torch.equal(long[:, :, :3], short)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", FRAMES)
def test_a_picture_is_a_clip_of_one_frame(kind: Any, frames: Any) -> None:
    clip = drawn(Noise(7, kind, frames=frames), (2, 3, 1, 5, 5))
    assert torch.equal(clip[:, :, 0], drawn(Noise(7, kind, frames=frames), (2, 3, 5, 5)))


@pytest.mark.parametrize("frames", FRAMES)
def test_the_torch_source_starts_as_diffusers_does(frames: Any) -> None:
    from diffusers.utils.torch_utils import randn_tensor

    generators = [torch.Generator("cpu").manual_seed(4 + i) for i in range(2)]
    start = numbers_of(Noise(4, "torch", frames=frames), SMALL).at(0)
    if frames != "mixed":
        assert torch.equal(start, randn_tensor(SMALL, generator=generators))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", FRAMES)
def test_draws_in_any_order_are_the_same(kind: Any, frames: Any) -> None:
    noise, shape = Noise(3, kind, frames=frames), (1, 2, 3, 4, 4)
    ladder = [level(r) for r in (9.0, 5.0, 2.0, 0.7, 0.1)]
    source = numbers_of(noise, shape)
    steps = list(range(4))
    forward = {i: source.between(i + 1, ladder[i], ladder[i + 1]) for i in steps}
    resumed = numbers_of(noise, shape)
    for i in (2, 3, 0, 1, 2):
        again = resumed.between(i + 1, ladder[i], ladder[i + 1])
        assert again == forward[i] if isinstance(again, Draw) else torch.equal(again, forward[i])


def test_other_sources_leave_the_interval_aside() -> None:
    source = numbers_of(Noise(3), SMALL)
    assert source.between(2, level(3), level(1)) == source.at(2)
    torch_source = numbers_of(Noise(3, "torch"), SMALL)
    assert torch.equal(torch_source.between(2, level(3), level(1)), torch_source.at(2))


@pytest.mark.parametrize("ratios", [(14.6, 5.0, 0.03), (math.inf, 300.0, 1e-3), (2.0, 1.99, 1.98)])
def test_increments_of_the_path_add_up(ratios: tuple[float, float, float]) -> None:
    a, b, c = (level(r) for r in ratios)
    source = numbers_of(Noise(5, "brownian"), SMALL)

    def increment(first: NoiseLevel, second: NoiseLevel) -> Tensor:
        found = source.between(1, first, second)
        assert isinstance(found, Tensor)
        return found.double() * math.sqrt(snr(second) - snr(first))

    whole = increment(a, c)
    parts = increment(a, b) + increment(b, c)
    torch.testing.assert_close(parts / whole.std(), whole / whole.std(), rtol=0, atol=2e-3)


def test_disjoint_increments_are_independent_and_draws_play_no_part() -> None:
    source = numbers_of(Noise(5, "brownian"), (1, 4, 32, 32))
    ladder = [level(r) for r in (14.6, 6.0, 2.0, 0.5, 0.03)]
    steps = torch.stack([source.between(9, a, b).flatten() for a, b in pairwise(ladder)])
    torch.testing.assert_close(torch.corrcoef(steps.double()), torch.eye(4).double(), atol=0.06, rtol=0)
    torch.testing.assert_close(steps.var(1), torch.ones(4), atol=0.1, rtol=0)
    assert torch.equal(source.between(1, ladder[0], ladder[1]).flatten(), steps[0])


def test_a_step_up_takes_back_what_the_step_down_added() -> None:
    source = numbers_of(Noise(5, "brownian"), SMALL)
    assert torch.equal(source.between(1, level(3), level(1)), -source.between(1, level(1), level(3)))


def test_the_path_depends_on_the_levels_ratio_alone() -> None:
    """Flow and variance-preserving models take the same path."""
    source = numbers_of(Noise(5, "brownian"), SMALL)
    flow = [NoiseLevel(1 - t, t, 0.0) for t in (0.75, 0.5)]
    assert torch.equal(source.between(1, *flow), source.between(1, level(3), level(1)))


def test_another_seed_or_stream_is_another_path() -> None:
    first, *others = (
        drawn(noise, SMALL)
        for noise in (Noise(5, "brownian"), Noise(6, "brownian"), Noise(5, "brownian", "other"))
    )
    assert not any(torch.isclose(first, other).any() for other in others)


def test_ancestral_noise_of_a_step_is_that_of_its_halves() -> None:
    """In x / (alpha ratio^2) a step adds W's increment, so two halves add what the whole adds."""
    source = numbers_of(Noise(5, "brownian"), SMALL)
    a, b, c = (level(r) for r in (3.0, 1.5, 0.8))

    def added(first: NoiseLevel, second: NoiseLevel) -> Tensor:
        r, s = first.sigma / first.alpha, second.sigma / second.alpha
        up = s * math.sqrt(1 - s**2 / r**2)  # euler_ancestral at eta 1, in x / alpha
        return up * source.between(1, first, second) / s**2

    torch.testing.assert_close(added(a, b) + added(b, c), added(a, c), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde"])
def test_a_finer_run_on_one_path_refines_the_picture(sampler: str, gaussian: Any) -> None:
    """On a path the run has a limit; with noise of its own each number of steps makes another picture."""
    model, x = gaussian(), torch.randn(SMALL, generator=torch.Generator().manual_seed(1))

    def made(kind: Any, steps: int) -> Tensor:
        levels = make_sigmas(model.schedule, steps, "karras")
        return run(sampler, model, None, x, levels, numbers_of(Noise(3, kind), SMALL))

    apart = {kind: float((made(kind, 16) - made(kind, 64)).std()) for kind in ("philox", "brownian")}
    assert apart["brownian"] < apart["philox"] / 4


@pytest.mark.parametrize("pair", [(1.0, 0.0), (1.0, 1.0), (2.0, 2.0000001)])
def test_a_path_has_no_increment_where_there_is_no_interval(pair: tuple[float, float]) -> None:
    with pytest.raises(UserError, match=r"between two different levels with noise; got sigma / alpha = "):
        drawn(Noise(5, "brownian"), SMALL, pair=pair)
