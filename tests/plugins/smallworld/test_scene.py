"""Scenes: what is drawn from a seed, and what training never sees."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from mezzotint_smallworld.scene import (
    COLOURS,
    FRAME,
    GAP,
    MARGIN,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    UNNAMED_COLOURS,
    UNNAMED_SHAPES,
    Scene,
    is_held_out,
    sample_scene,
)

SCENES = [sample_scene(seed) for seed in range(4000)]


def arrangement_of(scene: Scene) -> str:
    return scene.relation or str(scene.things[0].place)


def test_same_seed_gives_same_scene_and_another_gives_another() -> None:
    assert sample_scene(7) == sample_scene(7)
    assert sample_scene(7) != sample_scene(8)


def test_scene_of_a_known_seed_is_pinned_against_other_machines() -> None:
    scene = sample_scene(3)
    thing = scene.things[0]
    assert (thing.colour, thing.shape, thing.place) == ("teal", "triangle", "top")
    assert thing.radius == pytest.approx(14.503636, abs=1e-5)


def test_nothing_leaves_the_frame() -> None:
    for scene in SCENES:
        for thing in scene.things:
            for middle, half in zip(thing.centre, thing.half_extents, strict=True):
                assert half + MARGIN - 1e-6 <= middle <= FRAME - MARGIN - half + 1e-6


def test_boxes_of_two_objects_never_overlap() -> None:
    for scene in SCENES:
        if scene.relation is None:
            continue
        first, second = scene.things
        apart = [
            abs(a - b) - (h + k)
            for a, b, h, k in zip(
                first.centre, second.centre, first.half_extents, second.half_extents, strict=True
            )
        ]
        assert max(apart) > 2.0


def test_places_and_relations_are_tellable_from_centres() -> None:
    signs = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
    for scene in SCENES:
        first = scene.things[0]
        if first.place == "centre":
            assert max(abs(part - FRAME / 2) for part in first.centre) <= 1.5
        elif first.place is not None:
            along = [
                sign * (part - FRAME / 2)
                for sign, part in zip(signs[first.place], first.centre, strict=True)
                if sign
            ]
            assert along[0] >= 5.99
        elif scene.relation != "and":
            dx, dy = (b - a for a, b in zip(first.centre, scene.things[1].centre, strict=True))
            horizontal = scene.relation in ("left of", "right of")
            assert (abs(dx) > 2 * abs(dy)) if horizontal else (abs(dy) > 2 * abs(dx))
            assert ((dx if horizontal else dy) > 0) == (scene.relation in ("left of", "above"))


def test_sizes_keep_apart() -> None:
    for count, factor in ((1, 1.2), (2, 1.15)):
        ranges = []
        for size in SIZES:
            radii = [
                thing.radius
                for scene in SCENES
                if len(scene.things) == count
                for thing in scene.things
                if thing.size == size
            ]
            ranges.append((min(radii), max(radii)))
        assert all(factor * high < low for (_, high), (low, _) in pairwise(ranges))


def test_background_never_has_the_objects_colour() -> None:
    for scene in SCENES:
        assert not {thing.colour for thing in scene.things} & set(scene.background.colours)
        assert len(set(scene.background.colours)) == len(scene.background.rgbs)


def test_six_in_ten_scenes_have_one_object_and_eight_in_a_hundred_something_unnamed() -> None:
    single = sum(len(scene.things) == 1 for scene in SCENES) / len(SCENES)
    odd = sum(
        any(t.colour in UNNAMED_COLOURS or t.shape in UNNAMED_SHAPES for t in scene.things) for scene in SCENES
    ) / len(SCENES)
    assert single == pytest.approx(0.6, abs=0.03)
    assert odd == pytest.approx(0.08, abs=0.015)


def test_every_name_of_the_world_is_drawn() -> None:
    things = [thing for scene in SCENES for thing in scene.things]
    assert {thing.shape for thing in things} == {*SHAPES, *UNNAMED_SHAPES}
    assert {thing.colour for thing in things} == {*COLOURS, *UNNAMED_COLOURS}
    assert {arrangement_of(scene) for scene in SCENES} == {*PLACES, *RELATIONS}
    shapes = Counter(t.shape for s in SCENES for t in s.things if t.shape in SHAPES)
    assert min(shapes.values()) > 0.8 * max(shapes.values())


def test_train_and_test_combinations_are_disjoint() -> None:
    def looks(scene: Scene) -> list[tuple[str, str]]:
        return [(thing.colour, thing.shape) for thing in scene.things]

    assert not any(is_held_out(looks(scene), arrangement_of(scene)) for scene in SCENES)
    tested = [sample_scene(seed, split="test") for seed in range(500)]
    assert all(is_held_out(looks(scene), arrangement_of(scene)) for scene in tested)


def test_a_tenth_of_the_single_combinations_is_held_out_and_none_of_the_names_is_lost() -> None:
    held = [
        (colour, shape, place)
        for colour in COLOURS
        for shape in SHAPES
        for place in PLACES
        if is_held_out([(colour, shape)], place)
    ]
    assert 0.06 <= len(held) / 320 <= 0.14
    assert {shape for _, shape, _ in held} == set(SHAPES)


def test_mirrored_wordings_are_held_out_together() -> None:
    for colour in COLOURS:
        pair = [(colour, "star"), ("red", "ring")]
        assert is_held_out(pair, "left of") == is_held_out(pair[::-1], "right of")
        assert is_held_out(pair, "above") == is_held_out(pair[::-1], "below")
        assert is_held_out(pair, "and") == is_held_out(pair[::-1], "and")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"things": 3}, "things must be 1, 2 or None, got 3"),
        ({"unnamed": 1.5}, "unnamed must be 0 to 1"),
        ({"split": "dev"}, "split must be 'train' or 'test', got 'dev'"),
        ({"anywhere": -0.1}, "anywhere must be 0 to 1, got -0.1"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_scene(0, **arguments)


def test_things_anywhere_reach_every_quarter_and_keep_apart_within_the_frame() -> None:
    scenes = [sample_scene(seed, anywhere=1.0) for seed in range(400)]
    quarters = Counter()
    for scene in scenes:
        assert scene.relation == (None if len(scene.things) == 1 else "and")
        for thing in scene.things:
            assert thing.place is None
            for middle, half in zip(thing.centre, thing.half_extents, strict=True):
                assert half + MARGIN - 1e-6 <= middle <= FRAME - MARGIN - half + 1e-6
            if thing.size == "small":
                quarters[tuple(middle > FRAME / 2 for middle in thing.centre)] += 1
        if len(scene.things) == 2:
            first, second = scene.things
            gaps = [
                abs(a - b) - (h + k)
                for a, b, h, k in zip(
                    first.centre, second.centre, first.half_extents, second.half_extents, strict=True
                )
            ]
            assert max(gaps) >= GAP - 1e-6
    assert min(quarters[x, y] for x in (False, True) for y in (False, True)) > sum(quarters.values()) / 8


def test_a_share_of_things_anywhere_is_that_share() -> None:
    scattered = sum(sample_scene(seed, things=1, anywhere=0.3).things[0].place is None for seed in range(1000))
    assert 240 < scattered < 360


def test_pairs_anywhere_keep_the_held_out_combinations_of_their_split() -> None:
    for seed in range(200):
        for split in ("train", "test"):
            scene = sample_scene(seed, things=2, unnamed=0.0, split=split, anywhere=1.0)
            looks = [(thing.colour, thing.shape) for thing in scene.things]
            assert is_held_out(looks, "and") == (split == "test")
