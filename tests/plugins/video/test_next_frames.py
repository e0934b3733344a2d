"""VIDM: what its motion model is told and learns, and the loop that makes a clip frame by frame."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mezzotint import Cancelled, Conditioning, Denoiser, Latents, Noise, Sigmas, Source, UserError
from mezzotint.testing import FakeContext, check_node, fake_context
from mezzotint_models import Architecture, pack_network, trunk_tensors
from mezzotint_models.architecture import unet
from mezzotint_models.denoiser import denoiser as denoiser_of
from mezzotint_sampling.nodes import guide, sigmas
from mezzotint_smallworld import resolve_source
from mezzotint_smallworld.captions import full_caption
from mezzotint_smallworld.motion_captions import first_picture, motion_prompts
from mezzotint_training import Conditioner, Conditions, level_weights
from mezzotint_training.conditioners import LabelConditioner
from mezzotint_video.content_words import content_words
from mezzotint_video.frame_flow import block_flow
from mezzotint_video.frame_loop import next_frames
from mezzotint_video.frame_objective import FrameObjective, learn_frames
from mezzotint_video.frame_start import start_frames
from mezzotint_video.frame_task import FrameTask
from mezzotint_video.frame_told import FRAME_VECTOR, PastFrames, channels_for, frame_vector, told_frame

SIDE, WORDS, SCALE = 16, 8, 0.5
SOURCE = Source("bundled:smallworld", str(resolve_source("bundled:smallworld")), "0")


def architecture(**changes: Any) -> Architecture:
    settings = {
        "size": SIDE, "patch": 1, "channels": [8, 8], "head_channels": 4, "plain_levels": 1, "attention": "cross",
        "context": WORDS, "extra": channels_for(3), "pooled": WORDS + FRAME_VECTOR, "prediction": "v",
        "schedule": "scaled_linear", "beta_end": 0.02,
    }  # fmt: skip
    return unet(**{**settings, **changes})


def motion_model(**record: Any) -> Denoiser:
    """A motion model of pixels with random numbers everywhere, also where training begins with zeros."""
    torch.manual_seed(0)
    made = architecture()
    network = made.build()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    said = {**made.record(), "frames": {"scale": SCALE}, **record}
    return denoiser_of(pack_network(network, denoiser=said))


def words(number: int = 0, rows: int = 1) -> Conditioning:
    drawn = torch.randn(rows, 5, WORDS, generator=torch.Generator().manual_seed(number))
    return Conditioning(context=drawn, pooled=drawn[:, 0])


def first_frames(rows: int = 2) -> Latents:
    data = torch.randn(rows, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    return Latents(data, space="pixels", downscale=1)


def levels(model: Denoiser, steps: int = 3) -> Sigmas:
    return sigmas(model, steps=steps)


def made_by(ctx: FakeContext, model: Denoiser, told: Conditioning, frames: int = 4, **more: Any) -> Tensor:
    given = {"latents": first_frames(), "noise": Noise(seed=3), **more}
    return next_frames(ctx, model, told, sigmas=levels(model), frames=frames, **given).data


@pytest.mark.parametrize("moved", [(3, 0), (-5, 2), (0, -4)])
def test_the_flow_finds_where_a_thing_has_gone_and_leaves_an_even_ground_in_its_place(
    moved: tuple[int, int],
) -> None:
    maps = torch.zeros(2, 1, 4, 24, 24)
    thing = torch.randn(4, 5, 5) * 3
    dx, dy = moved
    maps[0, 0, :, 9:14, 9:14] = thing
    maps[1, 0, :, 9 + dy : 14 + dy, 9 + dx : 14 + dx] = thing
    found = block_flow(maps[0], maps[1])
    assert torch.allclose(found[0, :, 10:13, 10:13].mean((1, 2)), torch.tensor([dx, dy]).float(), atol=0.1)
    assert found[0, :, :3, :3].abs().max() < 0.5
    assert block_flow(maps[0], maps[0])[0, :, 10:13, 10:13].abs().max() < 0.05


def test_each_time_and_each_step_has_a_vector_of_its_own_within_one() -> None:
    time = torch.arange(1, 8) / 7
    made = frame_vector(time, torch.full((7,), 1 / 7))
    assert made.shape == (7, FRAME_VECTOR) and made.abs().max() <= 1
    assert torch.pdist(made).min() > 0.1
    assert (frame_vector(time, time * 0 + 1 / 14) - made).norm(dim=1).min() > 0.1


def past(rows: int = 2, time: float = 0.5) -> PastFrames:
    frames = torch.randn(2, rows, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return PastFrames(frames[0], frames[1], torch.full((rows,), time), torch.full((rows,), 0.25))


def test_a_frame_is_told_both_frames_the_flow_the_words_and_its_time_in_every_half_of_guidance() -> None:
    known = past()
    told = told_frame(words(rows=4), known, rows=4)
    assert torch.equal(told.concat[2:], told.concat[:2])
    assert torch.equal(told.concat[:2, :3], known.first) and torch.equal(told.concat[:2, 3:6], known.previous)
    assert torch.allclose(told.concat[:2, 6:] * 8, block_flow(known.first, known.previous))
    assert torch.equal(told.pooled[:2, :FRAME_VECTOR], frame_vector(known.time, known.step))
    assert torch.allclose(told.pooled[:, FRAME_VECTOR:], words(rows=4).context.mean(1))
    later = told_frame(words(rows=4), dataclasses.replace(known, time=known.time + 0.25), rows=4)
    assert not torch.equal(later.pooled, told.pooled)


def test_a_frame_without_words_or_with_too_many_is_refused() -> None:
    with pytest.raises(UserError, match="told what happens by a text"):
        told_frame(Conditioning(), past())
    with pytest.raises(UserError, match="2 clips and 3 texts"):
        told_frame(words(rows=3), past())


def test_the_weight_p2_falls_to_nothing_where_there_is_no_noise() -> None:
    """Choi et al. 2022, eq. 8 with k = gamma = 1: 1 / (1 + SNR) of the error in eps."""
    snr = torch.tensor([1e-3, 1.0, 1e3, 1e6], dtype=torch.float64)
    alpha, sigma = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    assert torch.allclose(level_weights("eps", "p2", 1.0, alpha, sigma), 1 / (1 + snr))
    in_v = level_weights("v", "p2", 1.0, alpha, sigma)
    assert torch.allclose(in_v, snr / (1 + snr) ** 2) and in_v[-1] < 1e-5


def test_the_first_frame_stays_as_it_is_and_the_others_follow_from_seed_and_words() -> None:
    model = motion_model()
    with fake_context() as ctx:
        made = made_by(ctx, model, words())
    assert made.shape == (2, 3, 4, SIDE, SIDE)
    assert torch.equal(made[:, :, 0], first_frames().data)
    assert (made.diff(dim=2).abs().amax((1, 3, 4)) > 0).all()
    for changed in ({"noise": Noise(seed=4)}, {"told": words(1)}, {"seconds": 0.5}):
        with fake_context() as ctx:
            other = made_by(ctx, model, changed.pop("told", words()), **changed)
        assert not torch.equal(other[:, :, 1:], made[:, :, 1:])
    with fake_context() as ctx:
        assert torch.equal(made_by(ctx, model, words()), made)


def test_a_clip_of_one_frame_is_the_first_one_and_loads_no_model() -> None:
    with fake_context(loaders={"models.network": lambda recipe, ctx: pytest.fail("loaded")}) as ctx:
        assert torch.equal(made_by(ctx, motion_model(), words(), frames=1)[:, :, 0], first_frames().data)


@pytest.mark.parametrize("kept", [1, 2])
def test_a_clip_that_was_stopped_goes_on_in_the_same_bits(kept: int) -> None:
    model = motion_model()
    with fake_context() as ctx:
        whole = made_by(ctx, model, words())
        saved = ctx.states[kept - 1]
    assert saved["frames"].shape[2] == kept + 1
    with fake_context(state=saved) as ctx:
        again = made_by(ctx, model, words())
        # Only what was missing is made.
        assert len(ctx.reports) == (3 - kept) * 3
    assert torch.equal(again, whole)


def test_a_run_can_be_cancelled_and_says_how_far_it_is_over_all_frames() -> None:
    with fake_context() as ctx:
        made_by(ctx, motion_model(), words())
        assert ctx.reports == [(done, 9) for done in range(1, 10)]
    with fake_context(cancel_at=5) as ctx, pytest.raises(Cancelled):
        made_by(ctx, motion_model(), words())
    assert len(ctx.states) == 1


def test_each_frame_is_told_what_was_made_before_and_times_as_training_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mezzotint_video.frame_predictor import ShownPastPredictor

    seen: list[PastFrames] = []
    show = ShownPastPredictor.show_past
    monkeypatch.setattr(ShownPastPredictor, "show_past", lambda self, past: (seen.append(past), show(self, past)))
    with fake_context() as ctx:
        made = made_by(ctx, motion_model(), words(), frames=5)
    clips = torch.zeros(2, 5, 3, SIDE, SIDE)
    for number, told in enumerate(seen, start=1):
        assert torch.equal(told.previous, made[:, :, number - 1]) and torch.equal(told.first, made[:, :, 0])
        from mezzotint_video.frame_task import past_of

        at, one = torch.full((2,), number), torch.ones(2, dtype=torch.long)
        _, trained = past_of(clips, at, one, torch.ones(2))
        assert torch.allclose(told.time, trained.time) and torch.allclose(told.step, trained.step)


def test_guidance_compares_with_other_words_and_never_with_another_past() -> None:
    """Away from the very same words there is nowhere to go."""
    model = motion_model()
    with fake_context() as ctx:
        plain = made_by(ctx, model, words())
    with fake_context() as ctx:
        same = made_by(ctx, guide(model, words(), scale=3.0), words())
    with fake_context() as ctx:
        other = made_by(ctx, guide(model, words(1), scale=3.0), words())
    assert torch.allclose(same, plain, atol=1e-3)
    assert (other - plain).abs().max() > 0.01


def test_one_first_frame_is_that_of_a_clip_for_each_prompt() -> None:
    one = first_frames().replace(data=first_frames().data[:1])
    with fake_context() as ctx:
        made = made_by(ctx, motion_model(), words(rows=2), latents=one)
    assert torch.equal(made[0, :, 0], made[1, :, 0]) and not torch.equal(made[0], made[1])


def test_the_nodes_keep_every_node_s_promises() -> None:
    model = motion_model()
    given = {"denoiser": model, "conditioning": words(), "latents": first_frames(), "sigmas": levels(model, 1)}
    with fake_context() as ctx:
        check_node(next_frames, ctx=ctx, noise=Noise(seed=3), frames=2, **given)
    check_node(content_words, prompts=["a star, still"])
    check_node(learn_frames, architecture=architecture(), conditioner=LabelConditioner(2))
    made = dataclasses.replace(architecture(extra=channels_for(8)), channels=8)
    check_node(start_frames, architecture=made, source=SOURCE)


def test_shared_noise_gives_every_frame_the_same_start() -> None:
    model = motion_model()
    made = []
    for frames in ("independent", "shared"):
        with fake_context() as ctx:
            made.append(made_by(ctx, model, words(), noise=Noise(seed=3, frames=frames)))
    assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": Latents(torch.zeros(1, 3, 2, SIDE, SIDE), "pixels", 1)}, r"first frames \[B, C, H, W\]"),
        ({"latents": first_frames().replace(mask=torch.ones(2, 1, SIDE, SIDE))}, "leave the mask out"),
        ({"latents": Latents(torch.zeros(1, 4, SIDE, SIDE), "pixels", 1)}, "wants 3"),
        ({"noise": Noise(seed=0, kind="torch")}, "philox or brownian"),
        ({"noise": Noise(seed=0, frames="mixed")}, "independent or shared"),
        ({"sampler": "eulr"}, "did you mean 'euler'"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_model_is_loaded(changes: dict[str, Any], message: str) -> None:
    with fake_context(loaders={"models.network": lambda recipe, ctx: pytest.fail("loaded")}) as ctx:
        with pytest.raises(UserError, match=message):
            made_by(ctx, motion_model(), words(), **changes)


def test_a_model_of_pictures_and_a_clip_without_words_are_refused() -> None:
    with fake_context() as ctx:
        with pytest.raises(UserError, match="wanted a motion model"):
            made_by(ctx, motion_model(frames=None), words())
        with pytest.raises(UserError, match="wanted words"):
            made_by(ctx, motion_model(), Conditioning())


@pytest.mark.parametrize(
    ("prompt", "picture"),
    [
        ("a small red star on a white background, moving left slowly", "a small red star on a white background"),
        ("a star, white background, changing to blue", "a star, white background"),
        ("a star left of a ring, the star still, the ring growing", "a star left of a ring"),
        ("a red star", "a red star"),
    ],
)  # fmt: skip
def test_the_content_model_is_told_the_prompt_without_its_motion(prompt: str, picture: str) -> None:
    assert content_words(prompts=[prompt, prompt]) == [picture, picture] == 2 * content_words(prompts=prompt)


def test_the_motion_is_cut_off_whatever_the_small_world_moves() -> None:
    for caption, scene in motion_prompts(40, 3):
        assert content_words(prompts=caption) == [full_caption(first_picture(scene))]


@pytest.mark.parametrize("prompts", [[], ", moving left"])
def test_a_prompt_of_which_nothing_is_left_is_refused(prompts: Any) -> None:
    with pytest.raises(UserError, match=r"video\.content_words: "):
        content_words(prompts=prompts)


# Training.


class Told(Conditions):
    """A context of the caption's length."""

    def read(self, items: Any) -> dict[str, Tensor]:
        return {"length": torch.tensor([len(item["caption"]) for item in items]).float()}

    def __call__(self, rows: Any, dropped: Tensor) -> Conditioning:
        context = rows["length"].masked_fill(dropped, 0.0).view(-1, 1, 1).expand(-1, 5, WORDS)
        return Conditioning(context=context)


@dataclasses.dataclass(frozen=True, eq=False)
class Teller(Conditioner):
    def open(self, ctx: Any, reader: Any, seed: int) -> Told:
        return Told()


class Clips:
    """Clips of noise. frames, side: of each."""

    def __init__(self, frames: int = 5, side: int = SIDE) -> None:
        self.shape = (frames, side, side, 3)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = np.random.default_rng(index).integers(0, 256, self.shape).astype(np.uint8)
        return {"clip": clip, "caption": "a" * (1 + index)}


def objective(**changes: Any) -> FrameObjective:
    made = learn_frames(architecture(), Teller(), scale=SCALE, **changes)
    assert isinstance(made, FrameObjective)
    return made


def opened(reader: Any = None, **changes: Any) -> FrameTask:
    return objective(**changes).open(fake_context(), reader or Clips(), 0, 4)


def test_a_frame_is_the_noised_one_before_and_what_is_learnt_of_its_change() -> None:
    """So what is wrong with the frame before is put right."""
    task = opened(noise=0.5)
    rows = task.batch(0, 0)
    clean, known = task.drawn(rows, torch.Generator().manual_seed(0))
    clips = rows["latents"].float()
    made = known.previous + SCALE * clean
    number = (known.time * 4).round().long()
    at = torch.arange(4)
    assert torch.allclose(made, clips[at, number], atol=1e-5)
    assert torch.equal(known.first, clips[:, 0])
    assert 0 < (known.previous - clips[at, number - 1]).std() < 0.5
    others = [task.drawn(rows, torch.Generator().manual_seed(seed))[1].time for seed in range(1, 6)]
    assert any(not torch.equal(time, known.time) for time in others)


def test_strides_are_larger_steps_of_time_over_the_same_second() -> None:
    task = opened(noise=0.0, strides=[2])
    rows = task.batch(0, 0)
    _, known = task.drawn(rows, torch.Generator().manual_seed(0))
    number = (known.time * 4).round().long()
    assert set(number.tolist()) <= {2, 4} and torch.allclose(known.step, torch.tensor(0.5))
    assert torch.equal(known.previous, rows["latents"].float()[torch.arange(4), number - 2])


def test_the_loss_is_that_of_v_and_reaches_only_what_is_not_frozen() -> None:
    task = opened(weighting="simple", frozen=["network.mid_block.*"])
    loss, figures = task.loss(task.batch(0, 0), "motion", torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(figures["mse"].item(), rel=1e-5)
    loss.backward()
    moved = {name for name, p in task.unet.named_parameters() if p.grad is not None}
    assert "network.conv_out.weight" in moved and not any("mid_block" in name for name in moved)
    again, _ = task.loss(task.batch(0, 0), "motion", torch.Generator().manual_seed(0))
    assert torch.equal(loss, again)


def test_what_is_trained_says_of_itself_how_its_changes_are_scaled_and_makes_clips() -> None:
    task = opened()
    weights = task.weights()["unet"]
    assert weights.meta["denoiser"]["frames"] == {"scale": SCALE}
    with fake_context() as ctx:
        assert made_by(ctx, denoiser_of(weights), words()).isfinite().all()


def test_figures_on_held_out_clips_compare_with_holding_still_and_the_sheet_has_both_clips() -> None:
    task = opened(noise=0.0)
    found = task.validate(torch.Generator().manual_seed(0))
    # The network begins with zeros at its end, so it guesses that nothing changes.
    assert found["guess"] == pytest.approx(found["still"], rel=0.05)
    assert task.sheet(torch.Generator().manual_seed(0)).data.shape[0] == 1


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: learn_frames(architecture(extra=6), Teller()), "extra 8 and pooled 24, got cross, 6 and 24"),
        (lambda: learn_frames(architecture(pooled=8), Teller()), "pooled 24"),
        (lambda: opened(Clips(frames=2), strides=[1, 2]), "a clip of 2 frames has no next one at the stride 2"),
        (lambda: opened(Clips(side=32)), "clips of 16x16 pixels"),
    ],
)
def test_training_refuses_another_architecture_and_clips_that_do_not_fit(made: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made()


def test_training_begins_with_what_the_trunk_sees_of_the_frame_before_and_the_change_on_it() -> None:
    made = Architecture(
        "mezzotint.unet", {**architecture().config, "extra": channels_for(8), "in_channels": 8}, channels=8
    )
    tensors = start_frames(made, source=SOURCE, scale=0.25).tensors
    trunk = trunk_tensors(SOURCE)["network.conv_in.weight"].float()
    change, first, before, flow = (torch.randn(1, n, 6, 6) for n in (8, 8, 8, 2))
    weight = torch.cat([tensors["unet/network.conv_in.weight"], tensors["unet/network.conv_in.side"]], dim=1)
    seen = torch.nn.functional.conv2d(torch.cat([change, first, before, flow], dim=1), weight)
    wanted = torch.nn.functional.conv2d(before + 0.25 * change, trunk)
    assert torch.allclose(seen, wanted, atol=1e-5)
    assert not tensors["unet/network.conv_out.weight"].any()
    with pytest.raises(UserError, match="a U-Net of 3 channels"):
        start_frames(architecture(), source=SOURCE)
    with pytest.raises(UserError, match="with extra 18, as"):
        start_frames(dataclasses.replace(architecture(), channels=8), source=SOURCE)
