"""Gen-1: depth as structure, and guidance by what temporal layers change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_unets import unet

from mezzotint import Conditioning, Latents, NoiseLevel, NoiseSchedule, Prediction, UserError, Video
from mezzotint.testing import denoiser, fake_context
from mezzotint_models.unet import UNetPredictor
from mezzotint_sampling.guidance import ClassifierFree
from mezzotint_video.depth_side import COARSEST, DepthSide, coarse, condition_on_depth, depth_channels
from mezzotint_video.inflate import InflatedPredictor
from mezzotint_video.motion_objective import learn_motion
from mezzotint_video.motion_task import MotionTask
from mezzotint_video.places import Attached, attention_places, residual_places
from mezzotint_video.temporal_guidance import TemporalGuidance, TemporalGuidancePredictor, guide_temporally
from mezzotint_video.temporal_layers import TemporalLayers
from mezzotint_video.windows import WindowedPredictor, Windows

LEVEL = NoiseLevel(0.6, 0.8, 500.0)
SCHEDULE = NoiseSchedule(prediction="v")
DEPTH = torch.rand(3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
LIKE = Latents(torch.zeros(3, 5, 4, 8, 8))


def video(depth: torch.Tensor) -> Video:
    return Video(depth.unsqueeze(-1), 8.0)


# Depth.


def test_the_depth_of_level_0_is_there_to_the_pixel_and_beside_it_the_level() -> None:
    told = condition_on_depth(Conditioning(), video(DEPTH), LIKE).concat
    assert told.shape == (3, DepthSide().channels(5), 4, 8, 8)
    found = torch.nn.functional.pixel_shuffle(told[:, :16].transpose(1, 2), 4).squeeze(2)
    assert torch.allclose((found + 1) / 2, DEPTH, atol=1e-6)
    assert (told[:, 16] == -1).all()
    assert (condition_on_depth(Conditioning(), video(DEPTH), LIKE, level=COARSEST).concat[:, 16] == 1).all()


def test_each_further_level_says_less_of_where_things_end_and_never_how_near_all_is_on_average() -> None:
    disc = (torch.stack(torch.meshgrid(*[torch.arange(64.0)] * 2, indexing="ij")) - 30).square().sum(0) < 150
    depth = disc.float().expand(2, 64, 64)
    edges = [coarse(depth, level).diff(dim=2).square().sum().item() for level in range(COARSEST + 1)]
    assert edges == sorted(edges, reverse=True) and edges[0] > 1.5 * edges[1] and edges[7] < 0.05 * edges[0]
    for level in range(COARSEST + 1):
        assert coarse(depth, level).mean() == pytest.approx(depth.mean().item(), abs=0.005)
    # Even the coarsest says where: half of it all lies within the disc's surroundings.
    left = coarse(depth, COARSEST)[0]
    assert left[14:46, 14:46].sum() > 0.7 * left.sum()


def test_training_shows_what_the_node_shows_at_levels_from_0_to_7() -> None:
    levels = (DEPTH * 255).byte()
    rows = {"depth": levels.repeat(20, 1, 1, 1), "latents": torch.zeros(60, 4, 5, 8, 8)}
    drawn, noise = DepthSide().draw(rows, torch.Generator().manual_seed(1))
    assert noise is None
    said = ((drawn[:, 0, 16, 0, 0] + 1) / 2 * COARSEST).round().int().tolist()
    assert sorted(set(said)) == list(range(COARSEST + 1))
    for row in range(6):
        one = video(levels[row % 3][None].float() / 255)
        shown = condition_on_depth(Conditioning(), one, Latents(torch.zeros(1, 5, 4, 8, 8)), level=said[row])
        assert torch.equal(shown.concat.transpose(1, 2)[0], drawn[row])


def test_frames_of_one_depth_are_told_one_thing_whatever_the_others_are() -> None:
    depth = DEPTH.clone()
    depth[:, 2] = depth[:, 0]
    made = depth_channels(depth, torch.tensor([0, 3, 7]), (8, 8))
    assert torch.equal(made[:, 0], made[:, 2]) and not torch.equal(made[:, 0], made[:, 1])


def test_a_larger_picture_of_the_same_depth_tells_the_same() -> None:
    smooth = coarse(DEPTH.flatten(0, 1), 4).unflatten(0, (3, 4))
    large = torch.nn.functional.interpolate(smooth, scale_factor=2, mode="bilinear")
    told, same = (condition_on_depth(Conditioning(), video(d), LIKE).concat for d in (large, smooth))
    assert (told - same).abs().max() < 0.05


def test_relative_depth_is_scaled_over_the_whole_clip_and_not_frame_by_frame() -> None:
    told = condition_on_depth(Conditioning(), video(DEPTH), LIKE, normalise=True).concat
    other = condition_on_depth(Conditioning(), video(DEPTH * 30 - 7), LIKE, normalise=True).concat
    assert torch.allclose(told, other, atol=1e-5) and told.min() == -1 and told.max() == 1
    fading = DEPTH * torch.tensor([1.0, 0.5, 0.25, 0.1]).view(1, 4, 1, 1)
    faded = condition_on_depth(Conditioning(), video(fading), LIKE, normalise=True).concat[:, :16]
    assert (faded.amax((1, 3, 4)).diff(dim=1) < 0).all()


def test_a_depth_that_does_not_belong_to_the_clip_is_refused() -> None:
    def told(depth: torch.Tensor, like: torch.Tensor = LIKE.data) -> Conditioning:
        return condition_on_depth(Conditioning(), video(depth), Latents(like))

    with pytest.raises(UserError, match="like wants the latents of a clip"):
        told(DEPTH, torch.zeros(3, 5, 8, 8))
    with pytest.raises(UserError, match=r"3 of 4 frames, the depth \[3, 3, 32, 32, 1\]"):
        told(DEPTH[:, :3])
    with pytest.raises(UserError, match="wanted \\[3 or 1, 4, H, W, C\\]"):
        told(DEPTH[:2])
    with pytest.raises(UserError, match="the depth is 32x24, which is not of the proportions of latents 8x8"):
        told(DEPTH[..., :24])
    with pytest.raises(UserError, match=r"wanted depth in 0\.\.1, got 0.* to 25.*normalise takes other scales"):
        told(DEPTH * 255)
    with pytest.raises(UserError, match=r"wanted depth in 0\.\.1"):
        told(DEPTH / 0)
    assert told(DEPTH[:1]).concat.shape[0] == 1


def test_a_data_set_without_a_depth_or_with_another_clips_is_refused() -> None:
    levels = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
    with pytest.raises(UserError, match="wants items with a depth, got caption, clip"):
        DepthSide().remembered(levels, {"clip": levels, "caption": ""})
    with pytest.raises(UserError, match=r"wanted a depth \[4, 32, 32\] uint8.*got \[4, 16, 16\]"):
        DepthSide().remembered(levels, {"depth": levels[:, ::2, ::2, 0].numpy()})
    with pytest.raises(UserError, match=r"got \[4, 32, 32\] torch.float32"):
        DepthSide().remembered(levels, {"depth": levels[..., 0].float().numpy()})


def test_a_crop_of_a_clip_takes_the_depth_of_the_same_frames() -> None:
    number = torch.arange(8.0).expand(5, 8)
    rows = {
        "latents": number.view(5, 8, 1, 1, 1).expand(5, 8, 3, 2, 2),
        "depth": number.byte().view(5, 8, 1, 1).expand(5, 8, 8, 8),
        "fps": torch.full((5,), 8.0),
    }
    task: Any = SimpleNamespace(objective=SimpleNamespace(crop=2))
    made = MotionTask.cropped(task, rows, torch.Generator().manual_seed(0))
    assert made["depth"].shape == (5, 2, 8, 8)
    assert torch.equal(made["depth"][:, :, 0, 0].float(), made["latents"][:, :, 0, 0, 0])
    assert torch.equal(made["seconds"] * 8, made["latents"][:, :, 0, 0, 0])


def test_depth_is_trained_on_single_frames_too_and_what_wants_whole_clips_is_not() -> None:
    recipe, told = denoiser(), SimpleNamespace()
    latent = None if recipe.space == "pixels" else told
    given: Any = {"denoiser": recipe, "conditioner": told, "autoencoder": latent}
    assert learn_motion(**given, side="depth", crop=1, apart=1.0).apart == 1.0
    with pytest.raises(UserError, match="side channels 'slow' are of whole clips"):
        learn_motion(**given, side="slow", crop=1)


@pytest.mark.parametrize(("share", "found"), [(0.0, 0), (0.25, 0.25), (1.0, 1)])
def test_as_many_steps_as_asked_take_each_frame_by_itself_and_validation_only_if_all_do(
    share: float, found: float
) -> None:
    task: Any = SimpleNamespace(objective=SimpleNamespace(apart=share))
    generator = torch.Generator().manual_seed(0)
    made = [MotionTask.apart(task, generator) for _ in range(400)]
    assert sum(made) / 400 == pytest.approx(found, abs=0.05)
    with torch.no_grad():
        assert {MotionTask.apart(task, generator) for _ in range(40)} == {share == 1}


# Temporal guidance.


class Mixed:
    """Of a clip the frames' mean and what is told; frame by frame each frame and what is told."""

    schedule = SCHEDULE

    def __init__(self) -> None:
        self.temporal, self.asked = True, 0

    @contextmanager
    def frames_apart(self) -> Iterator[None]:
        self.temporal = False
        try:
            yield
        finally:
            self.temporal = True

    def predict(self, x: torch.Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        self.asked += len(x)
        told = conditioning.context.view(-1, 1, 1, 1, 1).to(x)
        seen = x.mean(2, keepdim=True).expand_as(x) if self.temporal else x
        return Prediction((seen * told + told**2,), (1.0,), "v")


def told(value: float) -> Conditioning:
    return Conditioning(context=torch.tensor([[[value]]], dtype=torch.float64))


X = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def alone(value: float) -> torch.Tensor:
    return X * value + value**2


def together(value: float) -> torch.Tensor:
    return X.mean(2, keepdim=True).expand_as(X) * value + value**2


@pytest.mark.parametrize(("temporal", "scale"), [(0.0, 0.0), (0.0, 3.0), (0.5, 1.0), (1.3, 7.5), (2.0, 2.5)])
def test_it_is_the_papers_equation(temporal: float, scale: float) -> None:
    model = TemporalGuidancePredictor(Mixed(), temporal, told(0.4), scale)
    made = model.predict(X, LEVEL, told(0.7)).combined()
    wanted = alone(0.4) + temporal * (together(0.4) - alone(0.4)) + scale * (together(0.7) - together(0.4))
    assert torch.allclose(made, wanted, atol=1e-12)


def test_without_a_negative_it_compares_with_the_same_words() -> None:
    made = TemporalGuidancePredictor(Mixed(), 1.5, None, 1.0).predict(X, LEVEL, told(0.7)).combined()
    assert torch.allclose(made, alone(0.7) + 1.5 * (together(0.7) - alone(0.7)), atol=1e-12)


def test_at_0_a_clip_is_its_frames_each_by_itself_to_the_bit() -> None:
    assert torch.equal(
        TemporalGuidancePredictor(Mixed(), 0.0, None, 1.0).predict(X, LEVEL, told(0.7)).combined(), alone(0.7)
    )
    assert torch.equal(
        TemporalGuidancePredictor(Mixed(), 0.0, told(0.4), 0.0).predict(X, LEVEL, told(0.7)).combined(), alone(0.4)
    )


def test_the_more_temporal_guidance_the_more_frames_go_together() -> None:
    spread = []
    for temporal in (0.0, 0.5, 0.9, 1.1):
        made = TemporalGuidancePredictor(Mixed(), temporal, None, 1.0).predict(X, LEVEL, told(1.0)).combined()
        spread.append(made.diff(dim=2).abs().mean().item())
    assert spread[0] > spread[1] > spread[2] and spread[3] == pytest.approx(spread[2])


def test_the_first_output_is_the_unguided_one_and_each_thing_is_asked_once() -> None:
    inner = Mixed()
    made = TemporalGuidancePredictor(inner, 1.4, told(0.4), 3.0).predict(X, LEVEL, told(0.7))
    assert torch.equal(made.outputs[0], together(0.7)) and sum(made.weights) == pytest.approx(1)
    assert inner.asked == 3 * len(X)


def test_at_1_the_node_gives_classifier_free_guidance_or_the_denoiser_itself() -> None:
    model = denoiser()
    assert guide_temporally(model) is model
    (patch,) = guide_temporally(model, told(0.4), scale=3.0).patches
    assert isinstance(patch, ClassifierFree) and patch.scale == 3.0
    (patch,) = guide_temporally(model, told(0.4), temporal=1.5, scale=3.0).patches
    assert isinstance(patch, TemporalGuidance)


def test_layers_are_on_again_when_a_frame_by_frame_evaluation_fails() -> None:
    class Failing(Mixed):
        def predict(self, x: torch.Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
            if not self.temporal:
                raise UserError("no")
            return super().predict(x, level, conditioning)

    inner = Failing()
    with pytest.raises(UserError, match="no"):
        TemporalGuidancePredictor(inner, 0.5, None, 1.0).predict(X, LEVEL, told(0.7))
    assert inner.temporal


def test_it_reaches_the_temporal_layers_through_what_lies_between() -> None:
    x = torch.randn(1, 3, 12, 2, 2, dtype=torch.float64)
    windowed = WindowedPredictor(Mixed(), Windows(4, 2))
    made = TemporalGuidancePredictor(windowed, 0.0, None, 1.0).predict(x, LEVEL, told(0.7)).combined()
    assert torch.allclose(made, x * 0.7 + 0.49, atol=1e-12)


def test_a_denoiser_without_temporal_layers_and_a_scale_without_a_negative_are_refused() -> None:
    with pytest.raises(UserError, match="scale 2 wants a negative"):
        guide_temporally(denoiser(), scale=2.0)
    patch = TemporalGuidance(0.5)
    plain: Any = SimpleNamespace(schedule=SCHEDULE, predict=None)
    with (
        pytest.raises(UserError, match=r"no temporal layers to leave out; video\.inflate"),
        patch.apply(plain, fake_context()),
    ):
        pass


# Both on a network.


@contextmanager
def inflated(side: int = 0) -> Iterator[Any]:
    """A tiny U-Net with temporal layers that do something."""
    network = unet()
    torch.manual_seed(1)
    layers = TemporalLayers(
        convolutions=residual_places(network), attentions=attention_places(network), head=4,
        side=["conv_in", 8, side] if side else [],
    )  # fmt: skip
    for parameter in layers.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    layers.requires_grad_(False)
    with Attached(network, layers).on() as attached:
        yield InflatedPredictor(UNetPredictor(network, SCHEDULE), attached)


CLIP = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(7))
TOLD, NULL = (
    Conditioning(context=torch.randn(1, 6, 12, generator=torch.Generator().manual_seed(seed))) for seed in (8, 9)
)


def ran(model: Any, patches: Sequence[Any], conditioning: Conditioning) -> torch.Tensor:
    with ExitStack() as stack, torch.no_grad():
        for patch in patches:
            model = stack.enter_context(patch.apply(model, fake_context()))
        return model.predict(CLIP, LEVEL, conditioning).combined()


def test_at_1_a_networks_clip_is_bit_identical_to_plain_guidance_and_at_0_to_the_model_of_pictures() -> None:
    with inflated() as model:
        guided = guide_temporally(denoiser(), NULL, temporal=1.0, scale=2.5)
        plain = ran(model, [ClassifierFree(NULL, 2.5)], TOLD)
        assert torch.equal(ran(model, guided.patches, TOLD), plain)
        pictures, clips = ran(model.model, [], TOLD), ran(model, [], TOLD)
        assert not torch.allclose(pictures, clips, atol=1e-2)
        assert torch.equal(ran(model, guide_temporally(denoiser(), temporal=0.0).patches, TOLD), pictures)
        near = guide_temporally(denoiser(), NULL, temporal=1 + 1e-6, scale=2.5)
        assert torch.allclose(ran(model, near.patches, TOLD), plain, atol=1e-4)


def test_frames_by_themselves_still_keep_their_own_depth() -> None:
    """With temporal layers off, a frame's prediction hears its own structure and no other frame's."""
    depth = condition_on_depth(TOLD, video(DEPTH[:2, :3]), Latents(CLIP))
    other = DEPTH[:2, :3].clone()
    other[:, 1] = 1 - other[:, 1]
    moved = condition_on_depth(TOLD, video(other), Latents(CLIP))
    off = guide_temporally(denoiser(), temporal=0.0).patches
    with inflated(side=17) as model:
        change = (ran(model, off, depth) - ran(model, off, moved)).abs().amax((0, 1, 3, 4))
        assert change[1] > 1e-3 and change[0] == 0 and change[2] == 0
        assert (ran(model, [], depth) - ran(model, [], moved)).abs().amax((0, 1, 3, 4)).min() > 1e-4


def test_a_depth_for_layers_that_read_none_and_layers_without_their_depth_are_refused() -> None:
    depth = condition_on_depth(TOLD, video(DEPTH[:2, :3]), Latents(CLIP))
    with inflated() as model, pytest.raises(UserError, match=r"side channels \[2, 17, 3, 8, 8\].*without any"):
        ran(model, [], depth)
    wanted = r"these temporal layers read side channels \[2, 3, 17, 8, 8\].*got none"
    with inflated(side=17) as model, pytest.raises(UserError, match=wanted):
        ran(model, [], TOLD)
    with inflated(side=5) as model, pytest.raises(UserError, match=r"got \[2, 3, 17, 8, 8\]"):
        ran(model, [], depth)
