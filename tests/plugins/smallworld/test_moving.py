"""Moving scenes: what is drawn moves as the scene says, stays in the frame and apart, and the splits hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mezzotint_smallworld.draw import draw, masks
from mezzotint_smallworld.moving import (
    CLEAR,
    DIRECTIONS,
    MOTIONS,
    frames_of,
    is_held_out,
    sample_moving_scene,
)
from mezzotint_smallworld.scene import FRAME

SCENES = [sample_moving_scene(seed) for seed in range(400)]


def centre(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.mgrid[0:FRAME, 0:FRAME] + 0.5
    return float((mask * columns).sum() / mask.sum()), float((mask * rows).sum() / mask.sum())


def alone(motion: str) -> list:
    return [scene for scene in SCENES if len(scene.things) == 1 and scene.things[0].motion == motion][:6]


def test_one_seed_is_one_scene_and_frames_more_in_number_show_the_same_second() -> None:
    assert sample_moving_scene(7) == sample_moving_scene(7) != sample_moving_scene(8)
    few, many = (frames_of(SCENES[0], count) for count in (8, 15))
    assert few == many[::2] and len(frames_of(SCENES[0], 1)) == 1
    with pytest.raises(ValueError, match="at least one frame, got 0"):
        frames_of(SCENES[0], 0)


def test_every_motion_comes_and_no_thing_leaves_the_frame_or_meets_the_other() -> None:
    seen = Counter(one.motion for scene in SCENES for one in scene.things)
    assert seen.keys() == set(MOTIONS) and min(seen.values()) > 15
    for scene in SCENES:
        for frame in frames_of(scene, 5):
            drawn = masks(frame)
            for mask in drawn:
                rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
                assert rim.max() < 0.35, (scene.seed, "a thing is cut off; it may reach a quarter pixel in")
            if len(drawn) == 2:
                assert (drawn[0] * drawn[1]).max() == 0, (scene.seed, "things meet")


@pytest.mark.parametrize("motion", DIRECTIONS)
def test_a_thing_goes_where_its_motion_says_at_its_pace(motion: str) -> None:
    for scene in alone(motion):
        places = [centre(masks(frame)[0]) for frame in frames_of(scene, 5)]
        wanted = np.array(DIRECTIONS[motion]) * scene.things[0].amount
        assert np.allclose(np.subtract(places[-1], places[0]), wanted, atol=0.3)
        steps = np.diff(np.array(places), axis=0)
        assert np.allclose(steps, wanted / 4, atol=0.3)


def test_what_grows_doubles_and_what_shrinks_halves() -> None:
    for motion, factor in (("growing", 4.0), ("shrinking", 0.25)):
        for scene in alone(motion):
            areas = [masks(frame)[0].sum() for frame in frames_of(scene, 3)]
            assert areas[2] / areas[0] == pytest.approx(factor, rel=0.06)


def test_what_bounces_goes_up_twice_and_is_back() -> None:
    for scene in alone("bouncing"):
        heights = [centre(masks(frame)[0])[1] for frame in frames_of(scene, 9)]
        assert heights[0] == pytest.approx(heights[4], abs=0.2) == pytest.approx(heights[8], abs=0.2)
        assert heights[2] == pytest.approx(heights[0] - scene.things[0].amount, abs=0.3)


def test_a_turn_by_a_quarter_is_the_picture_turned() -> None:
    scene = alone("clockwise")[0]
    still = scene.things[0].thing
    frame = replace(frames_of(scene, 1)[0], things=(replace(still, centre=(32.0, 32.0)),))
    turned = replace(frame, things=(replace(still, centre=(32.0, 32.0), angle=90.0),))
    # One pixel of a fourth of the size: points on edges are rounded the other way.
    assert np.abs(np.rot90(masks(frame)[0], -1) - masks(turned)[0]).mean() < 0.01


def test_a_colour_changes_from_the_first_to_the_last_and_is_never_the_ground_s() -> None:
    for scene in alone("changing"):
        frames = frames_of(scene, 5)
        assert frames[-1].things[0].rgb == scene.things[0].becomes_rgb != frames[0].things[0].rgb
        for frame in frames:
            pixels = np.asarray(draw(frame)).astype(float)
            inside = masks(frame)[0] == 1
            assert np.ptp(pixels[inside], axis=0).max() == 0
            for ground in frame.background.rgbs:
                assert np.linalg.norm(pixels[inside][0] - ground) >= CLEAR - 2


def test_the_splits_share_no_combination() -> None:
    held = [sample_moving_scene(seed, split="test") for seed in range(60)]
    assert all(any(is_held_out(one) for one in scene.things) for scene in held)
    assert not any(is_held_out(one) for scene in SCENES for one in scene.things)


@pytest.mark.parametrize("wrong", [{"things": 3}, {"motions": ("flying",)}, {"motions": ()}, {"split": "all"}])
def test_what_there_is_not_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="sample_moving_scene: got"):
        sample_moving_scene(0, **wrong)
