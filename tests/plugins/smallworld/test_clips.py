"""Clips of the small world: what is drawn is the scene, and data sets and nodes give it."""

from __future__ import annotations

import numpy as np
import pytest

from mezzotint import UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_smallworld import full_motion_caption
from mezzotint_smallworld.draw import draw, masks
from mezzotint_smallworld.motion_draw import draw_clip
from mezzotint_smallworld.motion_nodes import clip_dataset, clips
from mezzotint_smallworld.moving import NEAREST, frames_of, sample_moving_scene

SCENES = [sample_moving_scene(seed) for seed in range(12)]


def opened(**settings):
    return fake_context().open_dataset(clip_dataset(count=40, **settings))


@pytest.mark.parametrize("scene", SCENES[:6])
def test_a_frame_is_the_picture_of_its_moment_with_its_masks(scene) -> None:
    drawn = draw_clip(scene, 5)
    assert drawn.video.shape == (5, 64, 64, 3) and drawn.video.dtype == drawn.depth.dtype == np.uint8
    for index, still in enumerate(frames_of(scene, 5)):
        assert np.array_equal(drawn.video[index], np.asarray(draw(still)))
        assert np.allclose(drawn.masks[index] / 255, np.stack(masks(still)))


def test_depth_is_the_size_that_is_seen_and_the_ground_is_nought() -> None:
    for scene in SCENES:
        drawn = draw_clip(scene, 4)
        assert drawn.depth[(drawn.masks == 0).all(1)].max() == 0
        for index, still in enumerate(frames_of(scene, 4)):
            for which, thing in enumerate(still.things):
                inside = drawn.depth[index][drawn.masks[index, which] == 255]
                assert np.ptp(inside) == 0 and inside[0] == pytest.approx(255 * thing.radius / NEAREST, abs=0.51)


def test_a_clip_in_half_a_second_is_the_first_half_of_what_happens() -> None:
    whole, half = draw_clip(SCENES[0], 9), draw_clip(SCENES[0], 5, seconds=0.5)
    assert np.array_equal(half.video, whole.video[:5])
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="lasts one second"):
            draw_clip(SCENES[0], 4, seconds=wrong)
    with pytest.raises(ValueError, match="at least one frame"):
        draw_clip(SCENES[0], 0)


def test_the_node_draws_clips_of_a_second_with_their_captions() -> None:
    made = clips(seed=3, count=2, frames=6, things=2, split="test")
    assert made.video.data.shape == (2, 6, 64, 64, 3) and made.video.fps == 6.0
    scenes = [sample_moving_scene(seed, things=2, split="test") for seed in (3, 4)]
    assert made.captions == [full_motion_caption(scene) for scene in scenes]
    assert np.array_equal(np.rint(made.video.data[1].numpy() * 255), draw_clip(scenes[1], 6).video)


def test_an_item_is_a_clip_with_its_first_frame_depth_rate_and_caption() -> None:
    reader = opened(seed=5, frames=7)
    assert len(reader) == 40 and reader.frames == 7
    item, drawn = reader[2], draw_clip(sample_moving_scene(7), 7)
    assert np.array_equal(item["clip"], drawn.video) and np.array_equal(item["depth"], drawn.depth)
    assert np.array_equal(item["image"], drawn.video[0]) and item["fps"] == 7.0
    assert item["caption"] == reader.caption(2) == reader[2]["caption"]
    assert reader.scene(2) == (sample_moving_scene(7), 7)


def test_at_several_rates_each_clip_has_one_and_shows_so_much_of_its_second() -> None:
    reader = opened(frames=4, fps=[4, 8, 16])
    rates = [reader.fps(index) for index in range(40)]
    assert set(rates) == {4.0, 8.0, 16.0}
    fast = rates.index(16.0)
    shown = draw_clip(sample_moving_scene(fast), 4, seconds=0.25)
    assert reader[fast]["fps"] == 16.0 and np.array_equal(reader[fast]["clip"], shown.video)


def test_only_the_motions_asked_for_are_there_and_the_splits_differ() -> None:
    reader = opened(motions=["growing", "still"], things=1, split="test")
    assert {reader.scene(index)[0].things[0].motion for index in range(40)} == {"growing", "still"}
    assert reader.scene(0)[0].split == "test"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clips(motions=["flying"]), r"clips: wanted motions of still, left, .*, got \['flying'\]"),
        (lambda: clip_dataset(motions=[]), r"clip_dataset: wanted motions"),
        (lambda: clip_dataset(frames=16, fps=[8.0, 16.0]), r"16 frames need rates of 16 or more, got fps \[8"),
        (lambda: clip_dataset(fps=[]), r"got fps \[\]"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_the_nodes_keep_what_every_node_promises() -> None:
    check_node(clips, count=2, frames=2)
    check_node(clip_dataset, count=4, frames=3, fps=[3.0, 6.0])
