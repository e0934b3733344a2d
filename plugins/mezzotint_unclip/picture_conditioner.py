"""What unCLIP's decoder is told of an item's picture alone, by the network that was trained with it: no words.

For training what goes beside a decoder that exists, such as the temporal layers of Make-A-Video, which learn from
clips that nobody has described (Singer et al. 2022, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Context, ImageEncoder, Recipe, Source, TextEncoder, UserError, Weights, node
from mezzotint_training import Conditioner, Conditions

if TYPE_CHECKING:
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

    def open(self, ctx: Context, reader: Any, seed: int) -> PictureConditions:
        from mezzotint_models import network_of

        recipe = Recipe(self.source, "", {**self.config, "dtype": "float32"}, weights=self.weights)
        network = network_of(recipe, ctx)
        return PictureConditions(network, ctx.realise(self.image_encoder), ctx.realise(self.text_encoder))


class PictureConditions(Conditions):
    """Items' pictures, or the middle frames of their clips, as what the decoder is told; encoded once each."""

    def __init__(self, network: Any, pictures: Any, words: Any) -> None:
        import torch

        self.network, self.pictures = network, pictures
        with torch.no_grad():
            self.text = words.condition([""])
        empty = self._told(torch.zeros(1, network.config["embedding"]), True)
        self.null = {name: getattr(empty, name)[0] for name in ("context", "pooled")}

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        import numpy as np
        import torch

        made = []
        for item in items:
            shown = item["clip"][len(item["clip"]) // 2] if "clip" in item else item.get("image")
            if shown is None:
                raise UserError(
                    f"unclip.condition_on_picture: the items have no picture, but {', '.join(sorted(item))}"
                )
            with torch.no_grad():
                pixels = torch.from_numpy(np.asarray(shown)).float()[None] / 255
                made.append(self._told(self.pictures.embed(pixels).float().cpu(), False))
        return {name: torch.cat([getattr(one, name) for one in made]).half() for name in ("context", "pooled")}

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


@node("unclip.condition_on_picture")
def condition_on_picture(
    image_encoder: ImageEncoder,
    text_encoder: TextEncoder,
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    part: Annotated[str, Field(max_length=200)] = "",
) -> PictureConditioner:
    """Tell a decoder that exists its item's picture, as unclip.condition_decoder does, and no words.

    Nothing of it learns. Of a clip it is the middle frame.

    image_encoder: CLIP's, as the decoder was trained with.
    text_encoder: the decoder's, which is asked what no words are.
    weights: the decoder's; in their place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several could be meant.

    Raises: UserError: both or neither are given, weights of another network; when training starts, items without a
    picture.
    """
    from mezzotint_models import recipe_for

    _, recipe = recipe_for("image_condition", weights, source, part, node="unclip.condition_on_picture")
    return PictureConditioner(image_encoder, text_encoder, **recipe)
