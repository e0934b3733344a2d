"""Checker: right about true pictures, also blurred and noisy ones, and not fooled by wrong ones."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from mezzotint_smallworld import checker
from mezzotint_smallworld.captions import (
    CaptionError,
    Wanted,
    WantedThing,
    full_caption,
    parse,
    wanted_of,
)
from mezzotint_smallworld.checker import ASPECTS, Reading, check, judge, read, score
from mezzotint_smallworld.draw import draw
from mezzotint_smallworld.scene import Scene, sample_scene

Pixels = NDArray[np.uint8]

SCENES = [sample_scene(1_000_000 + seed) for seed in range(600)]
PICTURES: list[Pixels] = [np.asarray(draw(scene)) for scene in SCENES]
WANTED = [wanted_of(scene) for scene in SCENES]


@pytest.fixture(scope="module")
def readings() -> list[Reading]:
    return [read(pixels) for pixels in PICTURES[:200]]


def spoiled(pixels: Pixels, blur: float, noise: float, seed: int) -> Pixels:
    soft = ndimage.gaussian_filter(pixels.astype(float), (blur, blur, 0))
    soft += np.random.default_rng(seed).normal(0, noise, soft.shape)
    return np.clip(np.rint(soft), 0, 255).astype(np.uint8)


def through_patches(pictures: Pixels, size: int, numbers: int) -> Pixels:
    """Patches projected to their principal components, as a linear autoencoder would."""
    side = 64 // size
    cut = pictures.reshape(-1, side, size, side, size, 3).swapaxes(2, 3)
    patches = cut.reshape(-1, size * size * 3).astype(float)
    mean = patches.mean(axis=0)
    axes = np.linalg.svd(patches[::8] - mean, full_matrices=False)[2][:numbers]
    back = (patches - mean) @ axes.T @ axes + mean
    pixels = back.reshape(-1, side, side, size, size, 3).swapaxes(2, 3).reshape(pictures.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def one(scene_seed: int) -> Scene:
    return sample_scene(scene_seed, things=1, unnamed=0.0)


def test_checker_reads_real_pictures_at_99_percent() -> None:
    result = score(PICTURES, WANTED)
    assert all(result[key] >= 99 for key in (*ASPECTS, "all", "one object", "two objects")), result


def test_checker_reads_blurred_and_noisy_pictures_at_97_percent() -> None:
    pictures = [spoiled(pixels, 0.6, 4, seed) for seed, pixels in enumerate(PICTURES[:200])]
    result = score(pictures, WANTED[:200])
    assert all(result[key] >= 97 for key in (*ASPECTS, "all")), result


def test_checker_reads_pictures_through_a_linear_autoencoder_at_97_percent() -> None:
    pictures = through_patches(np.stack(PICTURES[:200]), 4, 8)
    error = ((pictures.astype(float) - np.stack(PICTURES[:200])) ** 2).mean()
    assert 10 * np.log10(255**2 / error) < 31
    result = score(list(pictures), WANTED[:200])
    assert all(result[key] >= 97 for key in (*ASPECTS, "all")), result


def test_reading_also_names_what_captions_never_name() -> None:
    for seed in range(100):
        scene = sample_scene(seed, unnamed=1.0)
        seen = {(t.shape, t.colour) for t in read(np.asarray(draw(scene))).things}
        assert seen == {(t.shape, t.colour) for t in scene.things}


def test_centre_and_radius_are_read_within_a_pixel(readings: list[Reading]) -> None:
    for scene, reading in zip(SCENES, readings, strict=False):
        seen = reading.things
        for thing in scene.things:
            near = min(seen, key=lambda s: np.hypot(*np.subtract(s.centre, thing.centre)))
            assert np.abs(np.subtract(near.centre, thing.centre)).max() < 1
            assert near.radius == pytest.approx(thing.radius, abs=1)


def test_shuffled_prompts_score_low() -> None:
    result = score(PICTURES[:150], [*WANTED[1:150], WANTED[0]])
    assert result["all"] <= 2
    assert result["colour"] <= 20 and result["shape"] <= 20 and result["background"] <= 20


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_blank_picture_has_no_object_and_fails(grey: int) -> None:
    blank = np.full((64, 64, 3), grey, dtype=np.uint8)
    assert read(blank).things == ()
    verdict = check(blank, parse("a large red circle in the centre"))
    assert (verdict.count, verdict.colour, verdict.shape, verdict.size) == (False,) * 4
    assert not verdict.place and not verdict.all
    pair = check(blank, parse("a red circle left of a blue star"))
    assert pair.relation is False and not pair.all


def test_noise_fails() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert not check(pixels, parse("a red circle")).all


def test_one_object_too_many_or_too_few_fails(readings: list[Reading]) -> None:
    for scene, reading in zip(SCENES, readings, strict=False):
        goal = wanted_of(scene)
        if scene.relation:
            fewer = judge(reading, Wanted(goal.things[:1], None, goal.background))
            assert not fewer.count and not fewer.all
        else:
            more = judge(reading, Wanted((*goal.things, WantedThing()), None, goal.background))
            assert not more.count and not more.all


def test_extra_patch_in_a_corner_fails() -> None:
    scene = next(s for s in map(one, range(100)) if s.things[0].place == "right")
    pixels = np.asarray(draw(scene)).copy()
    assert check(pixels, wanted_of(scene)).all
    pixels[4:11, 4:11] = scene.things[0].rgb
    assert not check(pixels, wanted_of(scene)).all


def test_uneven_smear_fails() -> None:
    scene = next(
        s for s in map(one, range(200)) if s.things[0].place == "right" and s.background.colours == ("white",)
    )
    pixels = np.asarray(draw(scene)).copy()
    pixels[2:24, 2:12] = np.linspace(240, 0, 22).astype(np.uint8)[:, None, None]
    assert not check(pixels, wanted_of(scene)).all


def test_shapeless_blobs_have_no_shape() -> None:
    pixels = np.full((64, 64, 3), 246, dtype=np.uint8)
    pixels[28:36, 8:56] = (44, 84, 222)
    assert [thing.shape for thing in read(pixels).things] == [None]


def test_each_single_aspect_can_fail_alone() -> None:
    scene = next(s for s in map(one, range(200)) if (s.things[0].size, s.things[0].place) == ("large", "left"))
    thing, pixels = scene.things[0], np.asarray(draw(scene))
    true = {"shape": thing.shape, "colour": thing.colour, "size": "large", "place": "left"}
    wrong = {
        "shape": "star" if thing.shape != "star" else "ring",
        "colour": "teal",
        "size": "small",
        "place": "right",
    }
    for aspect, value in wrong.items():
        verdict = check(pixels, Wanted((WantedThing(**{**true, aspect: value}),)))
        missed = [name for name in ASPECTS if getattr(verdict, name) is False]
        assert missed == [aspect] and not verdict.all


def test_swapped_pair_fails_its_relation_only(readings: list[Reading]) -> None:
    for scene, reading in zip(SCENES, readings, strict=False):
        goal = wanted_of(scene)
        if goal.relation is None:
            continue
        open_things = tuple(WantedThing(t.shape, t.colour) for t in goal.things)
        if any(thing.shape is None or thing.colour is None for thing in open_things):
            continue
        opposite = {"left of": "right of", "above": "below"}
        opposite |= {there: here for here, there in opposite.items()}
        verdict = judge(reading, Wanted(open_things, opposite[goal.relation]))
        assert (verdict.relation, verdict.shape, verdict.colour) == (False, True, True)


def test_unasked_aspects_are_none() -> None:
    verdict = check(PICTURES[0], Wanted((WantedThing(),)))
    unasked = ("background", "colour", "shape", "size", "place", "relation")
    assert [getattr(verdict, aspect) for aspect in unasked] == [None] * 6


def test_stripes_may_be_named_in_either_order_and_gradients_may_not() -> None:
    kinds = {s.background.kind: (p, s) for s, p in zip(SCENES, PICTURES, strict=True)}
    for kind, right in (("stripes", True), ("gradient", False)):
        pixels, scene = kinds[kind]
        first, second = scene.background.colours
        words = full_caption(scene).split(", ")[0]
        ground = f"{second} and {first} striped" if right else f"{second} to {first} gradient"
        assert judge(read(pixels), parse(f"{words}, {ground} background")).background is right


def test_score_takes_prompts_and_leaves_unasked_aspects_none() -> None:
    scene = one(1)
    result = score([np.asarray(draw(scene))], [full_caption(scene)])
    assert result["all"] == result["one object"] == 100
    assert result["pictures"] == 1
    assert result["two objects"] is None and result["relation"] is None


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"must be \[64, 64, 3\] uint8, got \[3, 64, 64\] float64"):
        read(np.zeros((3, 64, 64)))
    with pytest.raises(CaptionError, match="expected a shape, got 'dog'"):
        score(PICTURES[:1], ["a red dog"])
    with pytest.raises(ValueError, match="zip"):
        score(PICTURES[:2], ["a red circle"])


def test_checker_never_looks_at_the_drawing_code() -> None:
    tree = ast.parse(Path(str(checker.__file__)).read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name and name.endswith("draw") for name in names)
