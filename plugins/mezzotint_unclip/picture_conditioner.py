"""What unCLIP's decoder is told of an item's picture alone, by the network that was trained with it: no words.

For training what goes beside a decoder that exists, such as the temporal layers of Make-A-Video, which learn from
clips that nobody has described (Singer et al. 2022, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zlib import crc32

from pydantic import Field

from mezzotint import Conditioning, Context, ImageEncoder, Recipe, Source, TextEncoder, UserError, Weights, node
from mezzotint_training import Conditioner, Conditions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["PictureConditioner", "condition_on_picture"]


@dataclass(frozen=True, eq=False)
class PictureConditioner(Conditioner):
    """Fields as in `unclip.condition_on_picture`; source, config and weights are a recipe's."""

    image_encoder: ImageEncoder
    text_encoder: TextEncoder
    source: Source
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    frame: str = "middle"
    learns: bool = False

    def open(self, ctx: Context, reader: Any, seed: int) -> Conditions:
        from mezzotint_models import network_of

        recipe = Recipe(self.source, "", {**self.config, "dtype": "float32"}, weights=self.weights)
        network = network_of(recipe, ctx)
        kind = LearntPictureConditions if self.learns else PictureConditions
        return kind(network, ctx.realise(self.image_encoder), ctx.realise(self.text_encoder), self.frame)


class PictureConditions(Conditions):
    """Items' pictures, or frames of their clips, as what the decoder is told; encoded once each."""

    def __init__(self, network: Any, pictures: Any, words: Any, frame: str) -> None:
        import torch

        self.network, self.pictures, self.frame = network, pictures, frame
        with torch.no_grad():
            self.text = words.condition([""])
        empty = self._told(torch.zeros(1, network.config["embedding"]), True)
        self.null = {name: getattr(empty, name)[0] for name in ("context", "pooled")}

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        import torch

        made = [self._told(one, False) for one in self.embeddings(items)]
        return {name: torch.cat([getattr(one, name) for one in made]).half() for name in ("context", "pooled")}

    def embeddings(self, items: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        """Of each item [1, D] float32. Raises: UserError: items without a picture."""
        import torch

        made = []
        for item in items:
            pixels = torch.from_numpy(shown(item, self.frame)).float()[None] / 255
            with torch.no_grad():
                made.append(self.pictures.embed(pixels).float().cpu())
        return made

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        import torch

        told = {
            name: torch.where(dropped.view(-1, *[1] * null.ndim), null.to(rows[name].device), rows[name].float())
            for name, null in self.null.items()
        }
        return Conditioning(**told)

    def _told(self, embedding: Tensor, dropped: bool) -> Conditioning:
        import torch

        with torch.no_grad():
            made: Conditioning = self.network(embedding, torch.tensor([dropped]), self.text)
        return made


class LearntPictureConditions(PictureConditions):
    """The same, with a network that learns along: what is remembered are the embeddings."""

    def __init__(self, network: Any, pictures: Any, words: Any, frame: str) -> None:
        # The pool's own is lent to others too.
        super().__init__(deepcopy(network), pictures, words, frame)
        self.modules = {"image": self.network.requires_grad_(True)}

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        import torch

        return {"embedding": torch.cat(self.embeddings(items)).half()}

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        embedding = rows["embedding"].float()
        empty = {
            name: value.to(embedding.device).expand(len(embedding), *value.shape[1:])
            for name in ("context", "pooled")
            if (value := getattr(self.text, name)) is not None
        }
        told: Conditioning = self.network(embedding, dropped, Conditioning(**empty))
        return told

    def parts(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        width = self.network.config["embedding"]
        return {"image": pack_network(self.network, image_condition={"embedding": width})}


def shown(item: Mapping[str, Any], frame: str) -> NDArray[np.uint8]:
    """An item's picture [H, W, 3], or a frame of its clip: the middle one, or any, the same one each time.

    Raises: UserError: neither.
    """
    import numpy as np

    if "clip" in item:
        clip = np.asarray(item["clip"])
        # What is remembered of an item is a function of the item alone; over many items each frame comes up.
        number = len(clip) // 2 if frame == "middle" else crc32(clip.tobytes()) % len(clip)
        return np.array(clip[number])
    if "image" not in item:
        raise UserError(f"unclip.condition_on_picture: the items have no picture, but {', '.join(sorted(item))}")
    return np.array(item["image"])


@node("unclip.condition_on_picture")
def condition_on_picture(
    image_encoder: ImageEncoder,
    text_encoder: TextEncoder,
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    part: Annotated[str, Field(max_length=200)] = "",
    frame: Literal["middle", "any"] = "middle",
    learns: bool = False,
) -> PictureConditioner:
    """Tell a decoder that exists its item's picture, as unclip.condition_decoder does, and no words.

    image_encoder: CLIP's, as the decoder was trained with.
    text_encoder: the decoder's, which is asked what no words are.
    weights: the decoder's; in their place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several could be meant.
    frame: which one of a clip is shown: the middle one, or any, another one for each clip.
    learns: whether the network that says the embedding to the decoder is trained along, from what it is; it then
    comes with the weights.

    Raises: UserError: both or neither are given, weights of another network; when training starts, items without a
    picture.
    """
    from mezzotint_models import recipe_for

    _, recipe = recipe_for("image_condition", weights, source, part, node="unclip.condition_on_picture")
    return PictureConditioner(image_encoder, text_encoder, **recipe, frame=frame, learns=learns)
