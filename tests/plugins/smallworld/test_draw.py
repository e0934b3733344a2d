"""Drawing: pixels, masks and boxes agree with the scene."""

from __future__ import annotations

import numpy as np
import pytest

from mezzotint_smallworld.draw import boxes, draw, masks
from mezzotint_smallworld.scene import SHAPES, UNNAMED_SHAPES, sample_scene

SCENES = [sample_scene(seed) for seed in range(300)]


def test_picture_is_64_by_64_rgb_and_the_same_each_time() -> None:
    picture = draw(SCENES[0])
    assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert picture.tobytes() == draw(SCENES[0]).tobytes()


def test_inside_of_each_mask_has_the_objects_colour() -> None:
    for scene in SCENES:
        pixels = np.asarray(draw(scene))
        for thing, mask in zip(scene.things, masks(scene), strict=True):
            assert (pixels[mask == 1] == thing.rgb).all()


def test_outside_of_all_masks_is_the_ground() -> None:
    for scene in SCENES:
        pixels = np.asarray(draw(scene)).astype(int)
        outside = sum(masks(scene)) == 0
        if scene.background.kind == "plain":
            assert (pixels[outside] == scene.background.rgbs[0]).all()
        else:
            assert (pixels[0, 0] == scene.background.rgbs[0]).all()
            assert (pixels[-1, -1] == scene.background.rgbs[1]).all()


def test_masks_are_shares_and_fill_their_boxes_within_half_a_pixel() -> None:
    for scene in SCENES:
        for box, mask in zip(boxes(scene), masks(scene), strict=True):
            assert mask.shape == (64, 64) and mask.dtype == np.float32
            assert mask.min() == 0 and mask.max() == 1
            rows, columns = np.nonzero(mask > 0.02)
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.subtract(found, box)).max() < 1.8


def test_masks_of_two_objects_never_share_a_pixel() -> None:
    for scene in SCENES:
        if scene.relation:
            first, second = masks(scene)
            assert not (first * second).any()


@pytest.mark.parametrize("shape", [*SHAPES, *UNNAMED_SHAPES])
def test_areas_of_one_size_are_alike_across_shapes(shape: str) -> None:
    shares = [
        mask.sum() / thing.radius**2
        for seed in range(3000)
        for scene in [sample_scene(seed, things=1, unnamed=0.5)]
        if scene.things[0].shape == shape
        for thing, mask in zip(scene.things, masks(scene), strict=True)
    ]
    assert np.ptp(shares) < 0.2
    assert 1.4 < float(np.mean(shares)) < 3.2
