"""Windows over time: nothing changes that needs no neighbours, borders agree, a stopped run goes on."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from mezzotint import (
    Cancelled,
    Conditioning,
    Denoiser,
    Latents,
    NoiseLevel,
    NoiseSchedule,
    Prediction,
    Source,
    UserError,
)
from mezzotint.testing import check_node, fake_context, tiny_denoiser
from mezzotint_kernels import normals
from mezzotint_sampling import nodes, sampler_node
from mezzotint_video.windows import WindowedPredictor, Windows, window_starts, windows

FRAMES = 37


def _sampled(
    denoiser: Denoiser, ctx=None, conditioning=None, guidance=None, frames=FRAMES, **options
) -> torch.Tensor:
    if guidance is not None:
        denoiser = nodes.guide(denoiser, guidance, scale=3.0)
    latents = Latents(torch.zeros(2, 4, frames, 3, 2), space=denoiser.space)
    levels = nodes.sigmas(denoiser, steps=6)
    given = conditioning or Conditioning()
    noise = nodes.noise(seed=5)
    with ctx or fake_context(node_type="sampling.sample") as context:
        return sampler_node.sample(context, denoiser, given, latents, levels, noise, **options).data


class Mixing:
    """Predicts the clean clip to be the mean of the frames that it sees, plus a slope over its window.

    So every window sees another thing, and its first and last frames differ by `slope`.
    """

    def __init__(self, slope: float = 0.0):
        self.schedule = NoiseSchedule(prediction="x0")
        self.slope = slope
        self.lengths: list[int] = []

    def predict(self, x, level, conditioning):
        self.lengths.append(x.shape[2])
        ramp = torch.linspace(-0.5, 0.5, x.shape[2], dtype=x.dtype).view(-1, 1, 1) * self.slope
        return Prediction((x.mean(2, keepdim=True).expand_as(x) / 2 + x / 4 + ramp,), (1.0,), "x0")


def _mixing(slope: float = 0.0) -> tuple[Denoiser, Mixing, dict]:
    model = Mixing(slope)
    recipe = Denoiser(Source("testing:mixing", "", "mixing"), "testing.mixing", schedule=model.schedule)
    return recipe, model, {"testing.mixing": lambda recipe, ctx: model}


class Told:
    """Predicts what it is told of each frame: the context's mean and the side channel's."""

    schedule = NoiseSchedule(prediction="x0")

    def predict(self, x, level, conditioning):
        words = conditioning.context.mean((2, 3))[:, None, :, None, None]
        side = conditioning.concat.mean((1, 3, 4))[:, None, :, None, None]
        assert words.shape[2] == x.shape[2] and side.shape[2] in (1, x.shape[2])
        return Prediction(((words + side).expand_as(x),), (1.0,), "x0")


@pytest.mark.parametrize(
    ("prediction", "overlap", "shift"),
    [("eps", 0, False), ("eps", 4, True), ("v", 3, True), ("v", 7, False), ("x0", 0, True), ("x0", 7, True)],
)
def test_windows_change_nothing_of_a_model_that_sees_each_frame_alone(prediction, overlap, shift):
    plain = tiny_denoiser(0.5, 0.8, schedule=NoiseSchedule(prediction=prediction))
    found = _sampled(windows(plain, frames=8, overlap=overlap, shift=shift))
    wanted = _sampled(plain)
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)
    if not overlap and not shift:
        assert torch.equal(found[:, :, :8], wanted[:, :, :8])


def test_guidance_around_windows_is_guidance_without_them_and_the_same_inside():
    plain = tiny_denoiser(0.5, 0.8)
    told = Conditioning(context=torch.full((1, 4, 8), 0.7))
    negative = Conditioning(context=torch.zeros(1, 4, 8))
    wanted = _sampled(plain, conditioning=told, guidance=negative)
    around = _sampled(windows(plain, frames=8, overlap=4), conditioning=told, guidance=negative)
    inside = _sampled(windows(nodes.guide(plain, negative, scale=3.0), frames=8, overlap=4), conditioning=told)
    assert torch.allclose(around, wanted, atol=1e-5) and torch.allclose(inside, wanted, atol=1e-5)
    assert not torch.allclose(wanted, _sampled(plain), atol=0.1)


def test_a_clip_no_longer_than_a_window_and_a_picture_pass_as_they_are():
    recipe, _, loaders = _mixing()
    ctx = fake_context(loaders=loaders)
    plain = _sampled(recipe, fake_context(loaders=loaders), frames=8)
    assert torch.equal(_sampled(windows(recipe, frames=8, overlap=4), ctx, frames=8), plain)
    picture = torch.rand(2, 4, 3, 2)
    seen = WindowedPredictor(_Still(), Windows(8, 4)).predict(picture, NoiseLevel(0.5, 0.5, 0.0), None)
    assert seen.outputs[0] is picture


class _Still:
    schedule = NoiseSchedule()

    def predict(self, x, level, conditioning):
        return Prediction((x,), (1.0,), "eps")


@pytest.mark.parametrize("shift", [True, False])
def test_the_model_sees_windows_of_its_own_length_only(shift):
    recipe, model, loaders = _mixing()
    _sampled(windows(recipe, frames=8, overlap=4, shift=shift), fake_context(loaders=loaders))
    assert set(model.lengths) == {8}


def test_what_is_told_of_single_frames_goes_with_them():
    generator = torch.Generator().manual_seed(0)
    told = Conditioning(
        context=torch.rand(2, FRAMES, 4, 8, generator=generator),
        concat=torch.rand(2, 3, FRAMES, 3, 2, generator=generator),
    )
    x, level = torch.rand(2, 4, FRAMES, 3, 2), NoiseLevel(0.5, 0.5, 100.0, 2, 6)
    whole = Told().predict(x, level, told).combined()
    found = WindowedPredictor(Told(), Windows(8, 4)).predict(x, level, told).combined()
    assert torch.allclose(found, whole, atol=1e-6)
    one = told.replace(concat=told.concat[:, :, :1])
    found = WindowedPredictor(Told(), Windows(8, 4)).predict(x, level, one).combined()
    assert torch.allclose(found, Told().predict(x, level, one).combined(), atol=1e-6)
    with pytest.raises(UserError, match="something of 12 frames, and the clip has 37"):
        WindowedPredictor(Told(), Windows(8, 4)).predict(x, level, told.replace(concat=told.concat[:, :, :12]))


def test_conditions_that_hold_in_frames_hold_there():
    """A mask with frames, of conditions that are combined, is cut as the clip is."""
    from mezzotint_sampling.combined import CombinedConditioning, CombinedPredictor, Part

    first, second = (Conditioning(context=torch.full((1, 4, 8), value)) for value in (-1.0, 2.0))
    mask = (torch.arange(FRAMES) < 20).float().view(1, 1, FRAMES, 1, 1).expand(1, 1, FRAMES, 3, 2)
    told = CombinedConditioning(parts=(Part(first, mask=mask), Part(second, mask=1 - mask)))
    with fake_context() as ctx:
        model = ctx.realise(tiny_denoiser(0.5, 0.8))
    x, level = torch.rand(2, 4, FRAMES, 3, 2), NoiseLevel(0.5, 0.5, 100.0, 2, 6)
    whole = CombinedPredictor(model).predict(x, level, told).combined()
    found = WindowedPredictor(model, Windows(8, 4)).predict(x, level, told).combined()
    assert torch.allclose(found, whole, atol=1e-5)


def test_shifted_windows_cover_the_clip_and_their_borders_stay_nowhere():
    settings = Windows(8, 4, seed=3)
    inner = torch.zeros(FRAMES)
    for step in range(50):
        starts = window_starts(FRAMES, settings, step)
        assert starts == window_starts(FRAMES, Windows(8, 4, seed=3), step)
        assert starts[0] == 0 and starts[-1] == FRAMES - 8
        assert all(0 < after - before <= 4 for before, after in pairwise(starts))
        inner[starts[1:-1]] += 1
    # About a quarter of the steps has a border at each frame that can have one.
    assert inner[1 : FRAMES - 8].min() >= 8 and inner.max() <= 17
    assert window_starts(FRAMES, Windows(8, 4, seed=4), 0) != window_starts(FRAMES, settings, 0)
    assert window_starts(FRAMES, Windows(8, 4, shift=False), 0) == window_starts(FRAMES, Windows(8, 4, False), 9)


def _seams(clip: torch.Tensor, borders: list[int]) -> tuple[float, float]:
    """The mean difference of neighbouring frames across these borders, and elsewhere."""
    steps = clip.diff(dim=2).abs().mean((0, 1, 3, 4))
    at = torch.zeros(len(steps), dtype=torch.bool)
    at[[border - 1 for border in borders]] = True
    return float(steps[at].mean()), float(steps[~at].mean())


def test_overlapping_windows_have_no_seams_and_separate_ones_have():
    """A model whose frames depend on their place in the window: the worst case for a border."""
    recipe, _, loaders = _mixing(slope=1.0)
    ratios = {}
    for name, asked in {
        "apart": {"overlap": 0, "shift": False},
        "over": {"overlap": 4, "shift": False},
        "shifted": {"overlap": 4},
    }.items():
        clip = _sampled(
            windows(recipe, frames=8, **asked), fake_context(loaders=loaders), frames=40, sampler="ddim"
        )
        across, inside = _seams(clip, [8, 16, 24, 32])
        ratios[name] = across / inside
    assert ratios["apart"] > 3
    assert ratios["over"] < 1.6 and ratios["shifted"] < 1.6


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(sampler):
    recipe, _, loaders = _mixing(slope=0.3)
    long = windows(recipe, frames=8, overlap=4, seed=1)
    whole = _sampled(long, fake_context(loaders=loaders), sampler=sampler)
    for stop in (2, 5):
        stopped = fake_context(loaders=loaders, cancel_at=stop)
        with pytest.raises(Cancelled):
            _sampled(long, stopped, sampler=sampler)
        again = fake_context(loaders=loaders, state=stopped.states[-1])
        assert torch.equal(_sampled(long, again, sampler=sampler), whole)


def test_gradients_flow_through_windows_to_every_frame():
    """Reconstruction guidance around windows needs them."""
    x = normals(1, (1, 4, FRAMES, 3, 2)).requires_grad_(True)
    seen = WindowedPredictor(Mixing(), Windows(8, 4)).predict(x, NoiseLevel(0.5, 0.5, 0.0), None)
    seen.combined().square().sum().backward()
    assert x.grad is not None and (x.grad.abs().amax((0, 1, 3, 4)) > 0).all()


def test_the_node_keeps_every_node_s_promises_and_refuses_what_makes_no_sense():
    (made,) = check_node(windows, denoiser=tiny_denoiser(), frames=8, overlap=2, seed=7).values()
    assert made.patches[-1].frames == 8
    with pytest.raises(UserError, match="cannot overlap by 8"):
        windows(tiny_denoiser(), frames=8, overlap=8)
    with pytest.raises(UserError, match="has windows already"):
        windows(made, frames=8, overlap=2)
