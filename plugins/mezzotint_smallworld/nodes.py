"""The nodes of the small world: pictures with their captions, the data set, and the checker."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from mezzotint import Dataset, Image, Report, UserError, node

if TYPE_CHECKING:
    from mezzotint_smallworld.scene import Scene

__all__ = ["READER", "Pictures", "check", "dataset", "pictures", "scene_of"]

READER = "smallworld.scenes"
"""The reader of the data sets that `smallworld.dataset` describes."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Things = Literal[1, 2] | None
Split = Literal["train", "test"]
Label = Literal["shape", "colour"] | None
Share = Annotated[float, Field(ge=0, le=1)]


class Pictures(NamedTuple):
    """image: [count, 64, 64, 3].
    captions: one per picture.
    """

    image: Image
    captions: list[str]


@node("smallworld.pictures")
def pictures(
    *,
    seed: Seed = 0,
    count: Annotated[int, Field(ge=1, le=4096)] = 1,
    things: Things = None,
    split: Split = "train",
    unnamed: Share = 0.0,
) -> Pictures:
    """Draw pictures of the small world, with captions that say everything in the usual order.

    seed: picture i is the scene of seed + i.
    count: how many.
    things: objects per picture; without it one or two.
    split: "test" has only combinations that the bundled model never saw.
    unnamed: share of scenes with a colour or a shape that captions have no word for.
    """
    import numpy
    import torch

    from mezzotint_smallworld.captions import full_caption
    from mezzotint_smallworld.draw import draw
    from mezzotint_smallworld.scene import sample_scene

    scenes = [sample_scene(seed + i, things=things, unnamed=unnamed, split=split) for i in range(count)]
    drawn = numpy.stack([numpy.asarray(draw(scene)) for scene in scenes])
    return Pictures(Image(torch.from_numpy(drawn).float() / 255), [full_caption(scene) for scene in scenes])


@node("smallworld.dataset")
def dataset(
    *,
    seed: Seed = 0,
    count: Annotated[int, Field(ge=1, le=10**9)] = 100_000,
    things: Things = None,
    split: Split = "train",
    unnamed: Share | None = None,
    label: Label = None,
    anywhere: Share = 0.0,
) -> Dataset:
    """The small world as a data set, drawn when it is read.

    Captions are varied and leave words out, as people do. Each item also says where its things are: "boxes".

    seed: item i is the scene of seed + i.
    count: how many items.
    things, split: as in smallworld.pictures.
    unnamed: share of scenes with a colour or a shape that captions have no word for; 0.08 if null, 0 with labels.
    label: what the class of a picture is: the shape or the colour of its first thing.
    anywhere: share of scenes whose things lie anywhere in the frame, which their captions do not say.

    Raises: UserError: labels of what has no name.
    """
    if label and unnamed:
        raise UserError(
            f"smallworld.dataset: label {label!r} has classes for what is named alone, but unnamed is {unnamed}; "
            "leave unnamed out"
        )
    share = unnamed if unnamed is not None else 0.0 if label else 0.08
    config = {"seed": seed, "things": things, "split": split, "unnamed": share, "label": label}
    if anywhere:
        config["anywhere"] = anywhere
    return Dataset(reader=READER, config=config, length=count)


def scene_of(config: Mapping[str, Any], index: int) -> tuple[Scene, int]:
    """The scene of item `index`, and its seed."""
    from mezzotint_smallworld.scene import sample_scene

    seed = int(config["seed"]) + index
    named = {name: config[name] for name in ("things", "unnamed", "split")}
    scene = sample_scene(seed, **named, anywhere=config.get("anywhere", 0.0))
    return scene, seed


@node("smallworld.check")
def check(image: Image, *, prompts: str | list[str]) -> Report:
    """Read pictures of the small world and compare them with their prompts.

    image: [B, 64, 64, 3].
    prompts: one for all pictures, or one for each.

    returns: "score", per cent right by aspect (null where no prompt asks), and for each picture under
    "pictures" its prompt, what is right and wrong, and what was seen.
    Raises: UserError: another size, another number of prompts, a prompt outside the small world's grammar.
    """
    from mezzotint_smallworld.captions import CaptionError, parse
    from mezzotint_smallworld.checker import judge, read, score

    shape = tuple(image.data.shape)
    if shape[1:] != (64, 64, 3):
        raise UserError(f"smallworld.check: reads pictures [B, 64, 64, 3], got {list(shape)}; image.resize helps")
    asked = [prompts] * shape[0] if isinstance(prompts, str) else list(prompts)
    if len(asked) != shape[0]:
        raise UserError(f"smallworld.check: {len(asked)} prompts for {shape[0]} pictures")
    try:
        wanted = [parse(prompt) for prompt in asked]
    except CaptionError as error:
        raise UserError(f"smallworld.check: {error}") from error
    pixels = list(image.data.float().mul(255).round().clamp(0, 255).byte().cpu().numpy())
    seen = [read(picture) for picture in pixels]
    rows = [
        {
            "prompt": prompt,
            "right": dataclasses.asdict(judge(reading, goal)),
            "seen": dataclasses.asdict(reading),
        }
        for prompt, goal, reading in zip(asked, wanted, seen, strict=True)
    ]
    return Report({"score": score(pixels, wanted), "pictures": rows})
