"""Checker of clips: right about true clips, also blurred and decoded ones, and not fooled by others."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from mezzotint import UserError, Video
from mezzotint.testing import check_node
from mezzotint_smallworld import motion_checker, resolve_source
from mezzotint_smallworld.captions import CaptionError
from mezzotint_smallworld.motion_captions import full_motion_caption, parse_motion
from mezzotint_smallworld.motion_checker import (
    CLIP_ASPECTS,
    ClipReading,
    judge_clip,
    read_clip,
    score_clips,
    summary,
)
from mezzotint_smallworld.motion_draw import draw_clip
from mezzotint_smallworld.motion_from_pixels import check_clips, depth
from mezzotint_smallworld.moving import MOTIONS, MovingScene, sample_moving_scene

Clip = NDArray[np.uint8]
FIRST = 5_000_000


def one(motion: str, seed: int = 0) -> MovingScene:
    return sample_moving_scene(seed, things=1, motions=(motion,))


def slow(motion: str) -> MovingScene:
    return next(each for seed in range(99) if (each := one(motion, seed)).things[0].speed == "slowly")


# Each motion once, and pairs.
SCENES = [slow(motion) if motion in ("left", "up") else one(motion) for motion in MOTIONS]
SCENES += [sample_moving_scene(seed, things=2) for seed in range(4)]
CAPTIONS = [full_motion_caption(scene) for scene in SCENES]
CLIPS = [draw_clip(scene, 8).video for scene in SCENES]


HARD = [MOTIONS.index(motion) for motion in ("left", "anticlockwise", "shrinking", "bouncing", "changing")]


def spoiled(clip: Clip, blur: float, noise: float) -> Clip:
    soft = ndimage.gaussian_filter(clip.astype(float), (0, blur, blur, 0))
    soft += np.random.default_rng(0).normal(0, noise, soft.shape)
    return np.clip(np.rint(soft), 0, 255).astype(np.uint8)


def decoded(clips: list[Clip], noise: float) -> list[Clip]:
    """Through the bundled autoencoder, with noise in the latents as a share of their deviation."""
    from diffusers import AutoencoderKL

    autoencoder = AutoencoderKL.from_pretrained(resolve_source("bundled:smallworld") / "vae")
    generator = torch.Generator().manual_seed(0)
    result = []
    with torch.no_grad():
        for clip in clips:
            latent = autoencoder.encode(torch.from_numpy(clip).movedim(-1, 1) / 127.5 - 1).latent_dist.mean
            latent = latent + noise * latent.std() * torch.randn(latent.shape, generator=generator)
            shown = (autoencoder.decode(latent).sample + 1) * 127.5
            result.append(shown.round().clamp(0, 255).byte().movedim(1, -1).numpy())
    return result


@pytest.fixture(scope="module")
def readings() -> list[ClipReading]:
    return [read_clip(clip) for clip in CLIPS]


def all_at_least(least: float, score: dict) -> bool:
    return all(score[key] >= least for key in (*CLIP_ASPECTS, "all", "consistency"))


def test_real_clips_are_read_right_in_every_motion(readings: list[ClipReading]) -> None:
    # 300 clips of 8 and of 16 frames are wholly right; the slow test has a hundred of each.
    verdicts = [judge_clip(*pair) for pair in zip(readings, map(parse_motion, CAPTIONS), strict=True)]
    result = summary(readings, verdicts)
    assert result["clips"] == 15 and all_at_least(100, result), result


def test_more_frames_of_a_second_say_the_same() -> None:
    chosen = [SCENES[MOTIONS.index(motion)] for motion in ("left", "clockwise", "bouncing")]
    result = score_clips(
        [draw_clip(scene, 16).video for scene in chosen], [full_motion_caption(each) for each in chosen]
    )
    assert all_at_least(100, result), result


@pytest.mark.slow
@pytest.mark.parametrize("frames", [8, 16])
def test_99_percent_of_real_clips_are_read_right(frames: int) -> None:
    scenes = [sample_moving_scene(FIRST + seed) for seed in range(100)]
    result = score_clips(
        [draw_clip(scene, frames).video for scene in scenes], [full_motion_caption(scene) for scene in scenes]
    )
    assert all_at_least(99, result), result


def test_blur_and_noise_hide_no_motion() -> None:
    result = score_clips([spoiled(CLIPS[index], 0.7, 5.0) for index in HARD], [CAPTIONS[index] for index in HARD])
    assert all_at_least(90, result) and result["motion"] == 100, result


def test_the_bundled_autoencoder_hides_no_motion() -> None:
    few = [MOTIONS.index("left"), MOTIONS.index("shrinking")]
    clips = decoded([draw_clip(SCENES[index], 4).video for index in few], 0.2)
    result = score_clips(clips, [CAPTIONS[index] for index in few])
    assert all_at_least(90, result) and result["motion"] == 100, result


@pytest.mark.slow
def test_motion_is_read_right_in_95_percent_of_decoded_clips() -> None:
    scenes = [sample_moving_scene(FIRST + 500 + seed) for seed in range(60)]
    clips = decoded([draw_clip(scene, 8).video for scene in scenes], 0.3)
    result = score_clips(clips, [full_motion_caption(scene) for scene in scenes])
    # All 60 in motion, object and background; the noise leaves blots, which are told by the consistency alone.
    assert result["motion"] >= 95 and result["object"] >= 95, result
    assert result["consistency"] < 70, result


def test_a_blot_in_a_few_frames_is_no_object_but_not_consistent() -> None:
    clip = CLIPS[0].copy()
    clip[[2, 5], 2:9, 2:9] = 255 - clip[0, 0, 0]
    result = score_clips([clip], CAPTIONS[:1])
    assert result["object"] == result["motion"] == 100 and result["consistency"] == 75
    clip[:, 2:9, 2:9] = 255 - clip[0, 0, 0]
    assert score_clips([clip], CAPTIONS[:1])["object"] == 0


def test_a_clip_fits_no_other_motion_s_words(readings: list[ClipReading]) -> None:
    start = CAPTIONS[0].rsplit(", ", 1)[0]
    words = (
        "still",
        "moving left",
        "moving right",
        "moving up",
        "moving down",
        "growing",
        "shrinking",
        "bouncing",
    )
    words += ("turning left", "turning right", "changing to blue")
    goals = [parse_motion(f"{start}, {said}") for said in words]
    for motion, reading in zip(MOTIONS, readings, strict=False):
        right = [judge_clip(reading, goal).motion for goal in goals]
        # What changes its colour may change to another than blue.
        assert sum(right) == 1 or (motion == "changing" and not any(right))


def test_the_pace_is_per_second_whatever_the_rate() -> None:
    fast = sample_moving_scene(1, things=1, motions=("right",))
    for frames, seconds in ((4, 1.0), (8, 0.5)):
        seen = read_clip(draw_clip(fast, frames, seconds).video, frames / seconds).things[0]
        assert seen.motion == "right" and seen.speed == fast.things[0].speed
        assert seen.velocity[0] == pytest.approx(fast.things[0].amount, abs=0.7)


def test_speed_and_looks_asked_wrongly_are_wrong() -> None:
    scene, said = SCENES[1], CAPTIONS[1]
    other = "red" if scene.things[0].thing.colour != "red" else "green"
    wrong = said.replace(f" {scene.things[0].thing.colour} ", f" {other} ", 1)
    asked = [said, said.replace("slowly", "quickly"), said.replace(scene.things[0].thing.shape, "shape"), wrong]
    rows = [row["right"] for row in check_clips(clips_of([scene] * 4, 4), prompts=asked).data["clips"]]
    assert [row["speed"] for row in rows] == [True, False, True, True]
    assert [row["object"] for row in rows] == [True, True, True, False]
    assert [row["motion"] for row in rows] == [True] * 4 and [row["all"] for row in rows] == [
        True,
        False,
        True,
        False,
    ]


def test_frames_out_of_order_or_of_another_clip_are_not_consistent() -> None:
    scene = next(each for seed in range(99) if (each := one("right", seed)).things[0].speed == "quickly")
    clip, other = draw_clip(scene, 8).video, draw_clip(one("right", 3), 8).video
    assert read_clip(clip).consistency == 1
    assert read_clip(clip[[0, 5, 2, 7, 4, 1, 6, 3]]).consistency <= 0.5
    assert read_clip(np.concatenate([clip[:4], other[4:]])).consistency <= 0.5


def test_two_motions_at_once_have_no_name_and_nothing_at_all_is_read_as_nothing() -> None:
    goes, grows = draw_clip(one("right", 2), 8), one("growing", 1)
    both = [draw_clip(grows, 8).video[i] for i in range(8)]
    both = [np.roll(frame, 3 * i - 10, axis=1) for i, frame in enumerate(both)]
    assert read_clip(goes.video).things[0].motion == "right"
    assert read_clip(np.stack(both)).things[0].motion not in ("growing", "right")
    empty = read_clip(np.full((4, 64, 64, 3), 200, np.uint8))
    assert empty.things == () and empty.consistency == 0
    assert score_clips([np.full((4, 64, 64, 3), 200, np.uint8)], CAPTIONS[:1])["all"] == 0


def test_a_video_of_one_frame_is_a_still_one() -> None:
    assert read_clip(CLIPS[1][:1]).things[0].motion == "still"


def clips_of(scenes: list[MovingScene], frames: int = 8) -> Video:
    drawn = np.stack([draw_clip(scene, frames).video for scene in scenes])
    return Video(torch.from_numpy(drawn).float() / 255, float(frames))


def test_the_node_reports_the_score_and_every_clip(readings: list[ClipReading]) -> None:
    report = check_clips(clips_of(SCENES[:2]), prompts=CAPTIONS[:2]).data
    assert report["score"] == {**dict.fromkeys((*CLIP_ASPECTS, "all", "consistency"), 100.0), "clips": 2}
    row = report["clips"][1]
    assert row["prompt"] == CAPTIONS[1] and row["right"]["motion"] is True and row["consistency"] == 100
    assert row["seen"]["things"][0]["motion"] == "left" and row["seen"]["objects by frame"] == [1] * 8


@pytest.mark.parametrize(
    ("shape", "fps", "prompts", "message"),
    [
        ((1, 4, 32, 32, 3), 8.0, "a circle", r"reads clips \[B, F, 64, 64, 3\], got \[1, 4, 32, 32, 3\]"),
        ((1, 4, 64, 64, 1), 8.0, "a circle", r"reads clips"),
        ((4, 64, 64, 3), 8.0, "a circle", r"reads clips"),
        ((1, 0, 64, 64, 3), 8.0, "a circle", r"at least one clip of at least one frame"),
        ((0, 4, 64, 64, 3), 8.0, [], r"at least one clip of at least one frame"),
        ((1, 4, 64, 64, 3), 0.0, "a circle", r"frames per second must be more than 0, got 0"),
        ((2, 1, 64, 64, 3), 8.0, ["a circle"], r"1 prompts for 2 clips"),
        ((1, 1, 64, 64, 3), 8.0, "a circle, red background, flying", r"'flying' is no motion"),
    ],
)
def test_bad_clips_and_prompts_are_refused(shape: tuple, fps: float, prompts: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_clips(Video(torch.zeros(shape), fps), prompts=prompts)


def test_the_functions_refuse_what_is_no_clip() -> None:
    with pytest.raises(ValueError, match="at least one frame, got"):
        read_clip(np.zeros((0, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\[64, 64, 3\] uint8"):
        read_clip(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="frames per second"):
        read_clip(CLIPS[0], fps=0)
    with pytest.raises(ValueError, match="argument 2 is"):
        score_clips(CLIPS[:2], CAPTIONS[:1])
    with pytest.raises(CaptionError):
        score_clips(CLIPS[:1], ["a mauve circle"])


def test_the_checker_shares_no_drawing() -> None:
    folder = Path(motion_checker.__file__).parent
    for name in ("motion_checker", "motion_tracks", "checker"):
        tree = ast.parse((folder / f"{name}.py").read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"mezzotint_smallworld.draw", "mezzotint_smallworld.motion_draw"}


def test_depth_read_from_pixels_is_the_depth_drawn() -> None:
    scenes = [SCENES[MOTIONS.index(motion)] for motion in ("clockwise", "growing", "bouncing")] + SCENES[-1:]
    found = depth(clips_of(scenes, 4)).data[..., 0].numpy()
    true = np.stack([draw_clip(scene, 4).depth for scene in scenes]) / 255
    assert found.shape == (4, 4, 64, 64) and np.abs(found - true).max() < 0.1
    assert np.abs(found - true).mean() < 0.002


def test_depth_of_decoded_clips_is_near_and_does_not_flicker() -> None:
    scene = one("still", 5)
    clip = decoded([draw_clip(scene, 4).video], 0.2)[0]
    found = depth(Video(torch.from_numpy(clip)[None].float() / 255, 4.0)).data[0, ..., 0].numpy()
    true = draw_clip(scene, 4).depth / 255
    assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.97
    inside = draw_clip(scene, 1).masks[0, 0] == 255
    assert np.ptp(np.median(found[:, inside], axis=1)) < 0.02


def test_a_coarser_depth_says_less_and_keeps_how_much_there_is() -> None:
    video = clips_of([one("left", 1)], 2)
    fine = depth(video).data.numpy().ravel()
    coarse = [depth(video, level=level).data.numpy().ravel() for level in (1, 3, 7)]
    alike = [np.corrcoef(fine, each)[0, 1] for each in coarse]
    assert 1 > alike[0] > alike[1] > alike[2] > 0.4
    assert all(each.sum() == pytest.approx(fine.sum(), rel=0.05) for each in coarse)
    with pytest.raises(UserError, match=r"smallworld\.depth: reads clips"):
        depth(Video(torch.zeros(1, 2, 8, 8, 3), 8.0))


def test_the_nodes_keep_what_every_node_promises() -> None:
    video = clips_of(SCENES[:1], 2)
    check_node(check_clips, video=video, prompts=CAPTIONS[:1])
    check_node(depth, video=video, level=2)
