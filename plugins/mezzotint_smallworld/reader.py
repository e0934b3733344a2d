"""The small world as training data: items by index, what a caption says as classes, and the tokenizer's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mezzotint import UserError
from mezzotint_smallworld.attributes import ATTRIBUTES, CLASSES, attributes
from mezzotint_smallworld.scene import COLOURS, FRAME, SHAPES, UNNAMED_SHAPES

if TYPE_CHECKING:
    from mezzotint import Context, Dataset
    from mezzotint_smallworld.scene import Scene

__all__ = ["LABELS", "Reader", "open_scenes"]

LABELS: dict[str, tuple[str, ...]] = {"shape": SHAPES, "colour": tuple(COLOURS)}
"""The classes that a data set's pictures can have."""


class Reader:
    """Items of a data set that `smallworld.dataset` describes.

    class_counts: for each attribute of a caption its number of classes, 0 meaning unsaid. noun_classes: which of
    these attributes belong to the first noun, and which to the second. nouns: the words that name a shape.
    label_names: the classes of the items' "label", () without labels.
    """

    class_counts = tuple(1 + len(CLASSES[name]) for name in ATTRIBUTES)
    noun_classes = ((0, 1, 2), (5, 6, 7))
    nouns = (*SHAPES, *UNNAMED_SHAPES, "shape")

    def __init__(self, config: Mapping[str, Any], length: int) -> None:
        self.config = config
        self.length = length
        self.labelled: str | None = config.get("label")
        self.label_names = LABELS.get(self.labelled or "", ())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """ "image": [64, 64, 3] uint8; "caption": str; "boxes": see `boxes`; "label": int, if there are labels."""
        import numpy

        from mezzotint_smallworld.captions import caption
        from mezzotint_smallworld.draw import draw

        scene, seed = self._scene(index)
        found = {"image": numpy.asarray(draw(scene)), "caption": caption(scene, seed), "boxes": _boxes(scene)}
        return {**found, "label": self._label(scene)} if self.labelled else found

    def caption(self, index: int) -> str:
        """The caption alone, without drawing."""
        from mezzotint_smallworld.captions import caption

        return caption(*self._scene(index))

    def boxes(self, index: int) -> list[dict[str, Any]]:
        """Where the things are, without drawing: {"what": "red circle", "box": [left, top, right, bottom]}.

        Sides are shares of the frame, 0..1, x to the right and y down.
        A colour that has no name is left out and a shape that has none is "shape", as in captions.
        """
        return _boxes(self._scene(index)[0])

    def label(self, index: int) -> int:
        """The class alone, an index into `label_names`. Raises: UserError: there are no labels."""
        if not self.labelled:
            raise UserError("the data set has no labels; give smallworld.dataset a label")
        return self._label(self._scene(index)[0])

    def _scene(self, index: int) -> tuple[Scene, int]:
        from mezzotint_smallworld.nodes import scene_of

        return scene_of(self.config, index)

    def _label(self, scene: Scene) -> int:
        first = scene.things[0]
        return self.label_names.index(first.shape if self.labelled == "shape" else first.colour)

    @staticmethod
    def classes(caption: str) -> list[int]:
        """What a caption says, as one class number per attribute."""
        return attributes(caption)

    @staticmethod
    def tokenizer_files() -> dict[str, str]:
        """The files of a CLIP tokenizer that knows the grammar's words, by name."""
        from mezzotint_smallworld.tokens import write_tokenizer

        with TemporaryDirectory() as folder:
            write_tokenizer(Path(folder))
            return {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}


def _boxes(scene: Scene) -> list[dict[str, Any]]:
    from mezzotint_smallworld.draw import boxes

    found = []
    for thing, box in zip(scene.things, boxes(scene), strict=True):
        colour = [thing.colour] if thing.colour in COLOURS else []
        what = " ".join([*colour, thing.shape if thing.shape in SHAPES else "shape"])
        found.append({"what": what, "box": [min(max(side / FRAME, 0.0), 1.0) for side in box]})
    return found


def open_scenes(dataset: Dataset, ctx: Context) -> Reader:
    """The loader of reader "smallworld.scenes"."""
    return Reader(dataset.config, dataset.length)
