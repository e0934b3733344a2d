"""The bundled captioned world.

Scenes, drawing, captions, tokenizer and checker, and the model trained on it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint import UserError, hookimpl

if TYPE_CHECKING:
    from mezzotint_smallworld.captions import (
        GRADIENT_WORDS,
        PLACE_WORDS,
        RELATION_WORDS,
        STRIPE_WORDS,
        CaptionError,
        Wanted,
        WantedBackground,
        WantedThing,
        parse,
    )
    from mezzotint_smallworld.motion_captions import (
        WantedClip,
        WantedMotion,
        full_motion_caption,
        motion_prompts,
        parse_motion,
    )
    from mezzotint_smallworld.motion_checker import CLIP_ASPECTS, ClipReading, judge_clip, read_clip, score_clips
    from mezzotint_smallworld.motion_from_pixels import check_clips
    from mezzotint_smallworld.moving import MOTIONS, SPEEDS
    from mezzotint_smallworld.nodes import check
    from mezzotint_smallworld.scene import COLOURS, PLACES, SHAPES

__all__ = [
    "CLIP_ASPECTS", "COLOURS", "GRADIENT_WORDS", "MOTIONS", "PLACES", "PLACE_WORDS", "RELATION_WORDS", "SHAPES",
    "SOURCE", "SPEEDS", "STRIPE_WORDS", "CaptionError", "ClipReading", "Wanted", "WantedBackground", "WantedClip",
    "WantedMotion", "WantedThing", "check", "check_clips", "full_motion_caption", "judge_clip", "motion_prompts",
    "parse", "parse_motion", "read_clip", "register_loaders", "register_nodes", "resolve_source", "score_clips",
]  # fmt: skip

_HOME = {
    "check": "nodes", "COLOURS": "scene", "PLACES": "scene", "SHAPES": "scene", "CaptionError": "captions",
    "GRADIENT_WORDS": "captions", "PLACE_WORDS": "captions", "RELATION_WORDS": "captions",
    "STRIPE_WORDS": "captions", "Wanted": "captions", "WantedBackground": "captions", "WantedThing": "captions",
    "parse": "captions", "MOTIONS": "moving", "SPEEDS": "moving", "WantedClip": "motion_captions",
    "WantedMotion": "motion_captions", "full_motion_caption": "motion_captions",
    "motion_prompts": "motion_captions", "parse_motion": "motion_captions", "CLIP_ASPECTS": "motion_checker",
    "ClipReading": "motion_checker", "judge_clip": "motion_checker", "read_clip": "motion_checker",
    "score_clips": "motion_checker", "check_clips": "motion_from_pixels",
}  # fmt: skip

SOURCE = "bundled:smallworld"


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_smallworld.motion_from_pixels import check_clips, depth
    from mezzotint_smallworld.motion_nodes import clip_dataset, clips
    from mezzotint_smallworld.nodes import check, dataset, pictures
    from mezzotint_smallworld.things import check_things

    for function in (pictures, dataset, check, check_things, clips, clip_dataset, check_clips, depth):
        register(function)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    register("smallworld.scenes", _open_scenes)
    register("smallworld.clips", _open_clips)


def _open_scenes(dataset: Any, ctx: Any) -> Any:
    from mezzotint_smallworld.reader import open_scenes

    return open_scenes(dataset, ctx)


def _open_clips(dataset: Any, ctx: Any) -> Any:
    from mezzotint_smallworld.motion_reader import open_clips

    return open_clips(dataset, ctx)


@hookimpl
def resolve_source(uri: str) -> Path | None:
    """`bundled:smallworld` is the text-to-image model's folder, `bundled:NAME` a file of one trained system."""
    scheme, _, name = uri.partition(":")
    if scheme != "bundled" or "/" in name:
        return None
    here = Path(__file__).parent
    if uri == SOURCE:
        return here / "weights"
    known = {path.stem: path for path in (here / "systems").glob("*.safetensors")}
    if name not in known:
        from difflib import get_close_matches

        near = get_close_matches(name, ("smallworld", *known), 1)
        hint = f"; the nearest is bundled:{near[0]}" if near else ""
        names = ", ".join(sorted(("smallworld", *known)))
        raise UserError(f"nothing is bundled as {name!r}{hint}. There are {names}")
    return known[name]


def __getattr__(name: str) -> Any:
    # For other plugins, which use only the top level; imported when it is touched.
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
