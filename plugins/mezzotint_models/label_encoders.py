"""What a latent diffusion model is told besides text: a class by its name, or boxes with names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mezzotint import Conditioning, Context, Recipe, Source, UserError, Weights, node
from mezzotint_models.layout import Grid, read_boxes
from mezzotint_models.packed import Part, network_of, recipe_for, record_of

if TYPE_CHECKING:
    from torch import nn

    from mezzotint_models.label_networks import ClassTokens, LayoutEncoder

__all__ = [
    "LabelEncoder",
    "RealisedLabels",
    "encode_labels",
    "encode_layout",
    "label_encoder",
    "load_label_encoder",
]


@dataclass(frozen=True, eq=False)
class LabelEncoder(Recipe):
    """A model from class names, or from layouts, to context.

    kind: which of the two. names: what there is to name. objects: most boxes of a layout.
    """

    kind: Literal["class", "layout"] = "class"
    names: tuple[str, ...] = ()
    objects: int = 0


class RealisedLabels:
    """A realised label encoder. `module` is the network."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def nbytes(self) -> int:
        from mezzotint_models.weights import nbytes

        return nbytes(self.module)


def load_label_encoder(recipe: LabelEncoder, ctx: Context) -> RealisedLabels:
    """Loader `models.labels`."""
    return RealisedLabels(network_of(recipe, ctx))


@node("models.label_encoder")
def label_encoder(
    weights: Weights | None = None, *, source: Source | None = None, part: Part = ""
) -> LabelEncoder:
    """The part of a latent diffusion model that reads classes, or boxes with names.

    weights: what training gave; in its place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several read labels.
    Raises: UserError: both or neither are given; nothing that reads labels in there; a damaged or foreign file.
    """
    meta, recipe = recipe_for("label_encoder", weights, source, part, node="models.label_encoder")
    kind, config = record_of(meta, "label_encoder").get("kind"), meta.get("config", {})
    names = config.get("names")
    if (
        kind not in ("class", "layout")
        or not isinstance(names, list)
        or not all(isinstance(n, str) for n in names)
    ):
        raise UserError("models.label_encoder: the weights' record 'label_encoder' is damaged")
    objects = int(config.get("objects", 0))
    return LabelEncoder(**recipe, loader="models.labels", kind=kind, names=tuple(names), objects=objects)


@node("models.encode_labels", device=True)
def encode_labels(ctx: Context, encoder: LabelEncoder, *, labels: str | list[str | None] | None) -> Conditioning:
    """A class by its name, or one for each sample of a batch, as a denoiser's context.

    encoder: of the model that samples.
    labels: names of classes; null is no class, which guidance moves away from.

    returns: context [B, 1, D].
    Raises: UserError: an encoder of layouts; a class that there is none of.
    """
    import torch

    module: ClassTokens = _module(ctx, encoder, "class", "models.encode_labels")
    asked = labels if isinstance(labels, list) else [labels]
    if not asked:
        raise UserError("models.encode_labels: wanted at least one label, got an empty list")
    for name in asked:
        if name is not None and name not in encoder.names:
            known = ", ".join(encoder.names)
            raise UserError(
                f"models.encode_labels: there is no class {name!r}; there are {known}, and null for none"
            )
    numbers = [module.null if name is None else encoder.names.index(name) for name in asked]
    return Conditioning(context=module(torch.tensor(numbers, device=ctx.device)))


@node("models.encode_layout", device=True)
def encode_layout(ctx: Context, encoder: LabelEncoder, *, boxes: list[Any]) -> Conditioning:
    """Boxes with names, as a denoiser's context. The order of the boxes plays no part.

    encoder: of the model that samples.
    boxes: [{"what": "red circle", "box": [left, top, right, bottom]}, ...], edges in 0..1 of the picture's sides,
    y down; or a list of such lists, one for each sample of a batch. An empty list is what guidance moves away
    from.

    returns: context [B, L, D], and the boxes as `layout`.
    Raises: UserError: an encoder of classes; too many boxes, unknown names, edges out of range or in the wrong
    order, each with the place where it stands.
    """
    import torch

    module: LayoutEncoder = _module(ctx, encoder, "layout", "models.encode_layout")
    tokens = [module.grid.tokens(layout) for layout in _layouts(boxes, module.grid)]
    return Conditioning(context=module(torch.tensor(tokens, device=ctx.device)), layout=boxes)


def _layouts(boxes: Sequence[Any], grid: Grid) -> list[Any]:
    if boxes and all(isinstance(each, list) for each in boxes):
        return [read_boxes(each, grid, f"/boxes/{i}") for i, each in enumerate(boxes)]
    return [read_boxes(boxes, grid)]


def _module(ctx: Context, encoder: LabelEncoder, kind: str, where: str) -> Any:
    if encoder.kind != kind:
        other = {"class": "models.encode_labels reads classes", "layout": "models.encode_layout reads boxes"}
        raise UserError(f"{where}: the encoder is of kind {encoder.kind!r}; {other[encoder.kind]}")
    return ctx.realise(encoder).module
