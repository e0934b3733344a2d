"""The bundled CLIP as a judge, and the graph that ranks by it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import torch

from mezzotint import Source
from mezzotint.api import load
from mezzotint.runtime import Runtime
from mezzotint_models.image_encoders import image_encoder, load_image_encoder
from mezzotint_models.text_encoders import load_text_encoder, text_encoder
from mezzotint_smallworld import resolve_source
from mezzotint_smallworld.captions import full_caption
from mezzotint_smallworld.draw import draw
from mezzotint_smallworld.scene import COLOURS, SHAPES, Scene, rgb_of, sample_scene

GRAPH = Path(__file__).resolve().parents[2] / "graphs" / "text_to_image" / "clip_ranking.json"


def near_miss(scene: Scene, number: int) -> Scene:
    """The same scene but for the first thing's shape, or its colour."""
    thing = scene.things[0]
    if number % 2:
        changed = dataclasses.replace(thing, shape=SHAPES[(SHAPES.index(thing.shape) + 3) % len(SHAPES)])
    else:
        taken = {*(each.colour for each in scene.things), *scene.background.colours}
        colour = next(name for name in COLOURS if name not in taken)
        changed = dataclasses.replace(thing, colour=colour, rgb=rgb_of(colour))
    return dataclasses.replace(scene, things=(changed, *scene.things[1:]))


def test_a_picture_that_matches_is_above_one_with_one_thing_changed() -> None:
    scenes = [sample_scene(70_000 + number, unnamed=0.0, split="test") for number in range(32)]
    both = [*scenes, *(near_miss(scene, number) for number, scene in enumerate(scenes))]
    drawn = torch.from_numpy(numpy.stack([numpy.asarray(draw(scene)) for scene in both])).float() / 255
    path = resolve_source("bundled:clip")
    source = Source("bundled:clip", str(path), "0" * 64)
    ctx: Any = SimpleNamespace(device="cpu", dtype=torch.float32)
    with torch.no_grad():
        text = load_text_encoder(text_encoder(source=source), ctx)
        said = text.condition([full_caption(scene) for scene in scenes]).pooled
        shown = load_image_encoder(image_encoder(source=source), ctx).embed(drawn).view(2, 32, -1)
    right, wrong = (said * shown).sum(-1)
    assert (right > wrong).sum() >= 24


def test_the_graph_ranks_its_samples_and_retrieves_both_ways(runtime: Runtime) -> None:
    got = load(GRAPH, runtime=runtime).run(batch=4, keep=2, steps=2, unseen=12).outputs
    scores = got["ranking"].data["scores"]
    assert sorted(scores, reverse=True) == scores and sorted(got["ranking"].data["order"]) == [0, 1, 2, 3]
    assert got["best"].data.shape == (2, 64, 64, 3)
    assert len(got["accuracy_of_best"].data["rows"]) == 2 and len(got["accuracy"].data["rows"]) == 4
    for way in ("image_to_text", "text_to_image"):
        assert got["retrieval"].data[way]["within"] >= 0.9, "the bundled CLIP knows unseen combinations"
