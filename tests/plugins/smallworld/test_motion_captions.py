"""Captions of clips: they say what happens, are read back, and lose nothing to the tokenizer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from transformers import CLIPTokenizer

from mezzotint_smallworld import resolve_source
from mezzotint_smallworld.captions import CaptionError, full_caption
from mezzotint_smallworld.checker import check
from mezzotint_smallworld.draw import draw
from mezzotint_smallworld.motion_captions import (
    WantedMotion,
    first_picture,
    full_motion_caption,
    motion_caption,
    motion_prompts,
    parse_motion,
)
from mezzotint_smallworld.moving import MOTIONS, MovingScene, is_held_out, sample_moving_scene

SCENES = [sample_moving_scene(2_000_000 + seed) for seed in range(500)]
CIRCLE = "a red circle, white background"
PAIR = "a red circle left of a blue star, white background"


def motion_of(scene: MovingScene) -> list[tuple]:
    return [(one.motion, one.becomes) for one in scene.things]


def test_the_full_caption_says_every_motion_and_of_one_thing_its_speed() -> None:
    for scene in SCENES:
        wanted = parse_motion(full_motion_caption(scene)).motions
        assert [(one.motion, one.becomes) for one in wanted if one] == motion_of(scene)
        if len(scene.things) == 1:
            speed = scene.things[0].speed
            assert wanted[0] and wanted[0].speed == (None if speed == "plain" else speed)


def test_no_caption_is_cut_off_by_the_bundled_tokenizer_so_the_motion_is_always_told() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(resolve_source("bundled:smallworld") / "tokenizer")
    said = [full_motion_caption(scene) for scene in SCENES]
    said += [motion_caption(scene, seed) for seed, scene in enumerate(SCENES)]
    longest = max(len(tokens) for tokens in tokenizer(said)["input_ids"])
    assert longest <= tokenizer.model_max_length == 32
    assert longest >= 30, "the bound is not what holds it"


def test_the_picture_s_caption_comes_first_and_is_right_of_the_first_frame() -> None:
    for scene in SCENES[:25]:
        first = first_picture(scene)
        assert full_motion_caption(scene).startswith(full_caption(first) + ", ")
        verdict = check(np.asarray(draw(first)), parse_motion(full_motion_caption(scene)).picture)
        assert verdict.all, (full_motion_caption(scene), verdict)
    placed = Counter(first_picture(scene).things[0].place for scene in SCENES if len(scene.things) == 1)
    assert set(placed) == {"centre", "left", "right", "top", "bottom", None}


def test_varied_captions_leave_words_out_and_are_never_wrong() -> None:
    silent, wordings = 0, set()
    for seed, scene in enumerate(SCENES):
        said = motion_caption(scene, seed)
        assert said == motion_caption(scene, seed)
        wanted = parse_motion(said)
        if all(one is None for one in wanted.motions):
            silent += 1
            continue
        assert [(one.motion, one.becomes) for one in wanted.motions if one] == motion_of(scene)
        for one, moving in zip(wanted.motions, scene.things, strict=True):
            assert one and one.speed in (None, moving.speed)
        wordings |= {
            wording for wording in ("small to large", "growing", "turn left", ", the ") if wording in said
        }
    assert len(wordings) == 4
    assert 5 <= silent <= 50, "a twentieth has no motion"


@pytest.mark.parametrize(
    ("words", "motion"),
    [
        ("still", WantedMotion("still")),
        ("Moving  LEFT slowly", WantedMotion("left", "slowly")),
        ("the circle moving up quickly", WantedMotion("up", "quickly")),
        ("turning right", WantedMotion("clockwise")),
        ("turn left", WantedMotion("anticlockwise")),
        ("moving up and down", WantedMotion("bouncing")),
        ("large to small", WantedMotion("shrinking")),
        ("changing to blue", WantedMotion("changing", None, "blue")),
        ("red to blue", WantedMotion("changing", None, "blue")),
    ],
)
def test_words_of_motion_are_read(words: str, motion: WantedMotion) -> None:
    wanted = parse_motion(f"{CIRCLE}, {words}")
    assert wanted.motions == (motion,) and wanted.picture.things[0].shape == "circle"


def test_motions_of_two_things_go_by_name_else_by_order_and_one_may_be_open() -> None:
    left, still = WantedMotion("left"), WantedMotion("still")
    assert parse_motion(f"{PAIR}, the star moving left, the circle still").motions == (still, left)
    assert parse_motion(f"{PAIR}, red still, blue moving left").motions == (still, left)
    assert parse_motion(f"{PAIR}, moving left, still").motions == (left, still)
    assert parse_motion(f"{PAIR}, the star moving left").motions == (None, left)
    assert parse_motion(PAIR).motions == (None, None)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (f"{CIRCLE}, flying left", r"'flying left' is no motion; there are still, moving left"),
        (f"{CIRCLE}, still slowly", r"'still slowly' is no motion"),
        (f"{CIRCLE}, changing to mauve", r"'changing to mauve' is no motion"),
        (f"{CIRCLE}, blue to green", r"the thing is red and cannot begin as blue"),
        (f"{CIRCLE}, moving left, still", r"2 motions for 1 thing; say whose each is"),
        (f"{CIRCLE}, the star still", r"no thing is called 'star'"),
        (f"{PAIR}, moving left", r"1 motion for 2 things, and no name"),
        (f"{PAIR}, the star still, the star moving up", r"two motions for one thing"),
        ("a red circle and a red star, red still", r"both things are called 'red'"),
        ("a mauve circle, still", r"word 2: expected a shape, got 'mauve'"),
        ("moving left", r"expected 'a' and an object"),
        ("", r"expected 'a' and an object, got the end"),
    ],
)
def test_what_the_grammar_lacks_is_refused_with_what_there_is(prompt: str, message: str) -> None:
    with pytest.raises(CaptionError, match=message):
        parse_motion(prompt)


def test_prompts_are_held_out_and_of_what_was_asked_for() -> None:
    asked = motion_prompts(12, 3, things=1, motions=("growing", "left"))
    assert asked == motion_prompts(12, 3, things=1, motions=("growing", "left"))
    for prompt, scene in asked:
        assert len(scene.things) == 1 and is_held_out(scene.things[0]) and prompt == full_motion_caption(scene)
    assert {scene.things[0].motion for _, scene in asked} == {"growing", "left"}
    everything = {one.motion for _, scene in motion_prompts(200, 0) for one in scene.things}
    assert everything == set(MOTIONS)
