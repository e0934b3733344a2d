"""Captions: they say what the scene holds, and the parser reads them back."""

from __future__ import annotations

from collections import Counter

import pytest

from mezzotint_smallworld.captions import (
    PLACE_WORDS,
    CaptionError,
    Wanted,
    WantedBackground,
    WantedThing,
    caption,
    full_caption,
    parse,
    prompts,
    wanted_of,
)
from mezzotint_smallworld.scene import is_held_out, sample_scene

SCENES = [sample_scene(seed) for seed in range(4000)]


def test_full_caption_reads_back_as_everything_words_can_say() -> None:
    for scene in SCENES:
        assert parse(full_caption(scene)) == wanted_of(scene)


def test_random_captions_never_contradict_the_scene() -> None:
    for scene in SCENES:
        truth = wanted_of(scene)
        said = parse(caption(scene, 5))
        assert len(said.things) == len(truth.things)
        assert said.relation in (None, truth.relation)
        assert said.background in (None, truth.background)
        for ours, theirs in zip(said.things, truth.things, strict=True):
            assert (ours.shape, ours.colour) == (theirs.shape, theirs.colour)
            assert ours.size in (None, theirs.size)
            assert ours.place in (None, theirs.place)


def test_words_are_dropped_at_the_stated_rates() -> None:
    lost: Counter[str] = Counter()
    could: Counter[str] = Counter()
    for scene in SCENES:
        truth, said = wanted_of(scene), parse(caption(scene, 9))
        lost["background"] += said.background is None
        could["background"] += 1
        if truth.things[0].place:
            lost["place"] += said.things[0].place is None
            could["place"] += 1
        for ours, theirs in zip(said.things, truth.things, strict=True):
            if theirs.size:
                lost["size"] += ours.size is None
                could["size"] += 1
    shares = {aspect: lost[aspect] / could[aspect] for aspect in could}
    assert shares["size"] == pytest.approx(0.15, abs=0.025)
    assert shares["place"] == pytest.approx(0.10, abs=0.025)
    assert shares["background"] == pytest.approx(0.10, abs=0.025)


def test_never_named_things_stay_unnamed() -> None:
    hidden = ("teal", "pink", "crescent", "hexagon")
    for seed in range(500):
        scene = sample_scene(seed, unnamed=1.0)
        words = caption(scene, seed) + full_caption(scene)
        assert not any(word in words for word in hidden)


def test_same_scene_and_seed_give_the_same_words() -> None:
    assert caption(SCENES[0], 1) == caption(SCENES[0], 1)
    assert len({caption(SCENES[0], seed) for seed in range(50)}) > 5


def test_prompts_are_held_out_named_and_complete() -> None:
    pairs = prompts(200, seed=0)
    assert len(pairs) == 200
    for prompt, scene in pairs:
        assert parse(prompt) == wanted_of(scene)
        assert all(thing.shape and thing.colour for thing in parse(prompt).things)
        looks = [(thing.colour, thing.shape) for thing in scene.things]
        assert is_held_out(looks, scene.relation or str(scene.things[0].place))


def test_prompts_can_ask_for_one_object_only() -> None:
    assert all(scene.relation is None for _, scene in prompts(50, seed=1, things=1))


RED_CIRCLE = WantedThing("circle", "red", "large")


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        (
            "a large red circle on a white background",
            Wanted((RED_CIRCLE,), None, WantedBackground("plain", ("white",))),
        ),
        ("A  large RED circle", Wanted((RED_CIRCLE,))),
        ("a shape", Wanted((WantedThing(),))),
        ("on the left, an orange shape", Wanted((WantedThing(None, "orange", None, "left"),))),
        (
            "blue and white striped background, a star over a ring",
            Wanted(
                (WantedThing("star"), WantedThing("ring")),
                "above",
                WantedBackground("stripes", ("blue", "white")),
            ),
        ),
        (
            "a cross and a red circle on a black to red gradient background",
            Wanted(
                (WantedThing("cross"), WantedThing("circle", "red")),
                None,
                WantedBackground("gradient", ("black", "red")),
            ),
        ),
    ],
)
def test_parse_reads(prompt: str, wanted: Wanted) -> None:
    assert parse(prompt) == wanted


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "word 1: expected 'a' and an object, got the end"),
        ("a red", "word 3: expected a shape, got the end"),
        ("a red dog", "word 3: expected a shape, got 'dog'"),
        ("a red circle on a table", "word 6: expected a background's colour, got 'table'"),
        ("a red circle on the left left of a star", "expected 'on', got 'left'"),
        ("a star, red to blue striped background", "expected 'gradient', got 'striped'"),
        ("a star, red background please", "expected the end, got 'please'"),
    ],
)
def test_parse_says_where_and_what(prompt: str, message: str) -> None:
    with pytest.raises(CaptionError, match=message):
        parse(prompt)


def test_captions_of_things_anywhere_name_no_place() -> None:
    words = {word for place in PLACE_WORDS.values() for word in place}
    for seed in range(300):
        scene = sample_scene(seed, unnamed=0.0, anywhere=1.0)
        for text in (full_caption(scene), caption(scene, seed)):
            assert not any(word in text for word in words)
            assert parse(text).things[0].place is None
        assert parse(full_caption(scene)) == wanted_of(scene)
