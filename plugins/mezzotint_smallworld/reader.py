"""The small world as training data: items by index, what a caption says as classes, and the tokenizer's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mezzotint_smallworld.attributes import ATTRIBUTES, CLASSES, attributes
from mezzotint_smallworld.scene import SHAPES, UNNAMED_SHAPES

if TYPE_CHECKING:
    from mezzotint import Context, Dataset

__all__ = ["Reader", "open_scenes"]


class Reader:
    """Items of a data set that `smallworld.dataset` describes.

    class_counts: for each attribute of a caption its number of classes, 0 meaning unsaid. noun_classes: which of
    these attributes belong to the first noun, and which to the second. nouns: the words that name a shape.
    """

    class_counts = tuple(1 + len(CLASSES[name]) for name in ATTRIBUTES)
    noun_classes = ((0, 1, 2), (5, 6, 7))
    nouns = (*SHAPES, *UNNAMED_SHAPES, "shape")

    def __init__(self, config: Mapping[str, Any], length: int) -> None:
        self.config = config
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """ "image": [64, 64, 3] uint8; "caption": str."""
        import numpy

        from mezzotint_smallworld.nodes import item

        picture, caption = item(self.config, index)
        return {"image": numpy.asarray(picture), "caption": caption}

    def caption(self, index: int) -> str:
        """The caption alone, without drawing."""
        from mezzotint_smallworld.captions import caption
        from mezzotint_smallworld.nodes import scene_of

        scene, seed = scene_of(self.config, index)
        return caption(scene, seed)

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


def open_scenes(dataset: Dataset, ctx: Context) -> Reader:
    """The loader of reader "smallworld.scenes"."""
    return Reader(dataset.config, dataset.length)
