"""What a latent denoiser can be told besides text: a class as one token, or a layout of named boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Context, TextEncoder, UserError, node
from mezzotint_training.conditioner import Conditioner, Conditions

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Conditioning, Weights

__all__ = ["ClassTokenConditioner", "LayoutConditioner", "condition_on_class_token", "condition_on_layout"]

Width = Annotated[int, Field(ge=8, le=4096, multiple_of=4)]
Few = Annotated[int, Field(ge=1, le=64)]
_LOOKED_AT = 4096  # items whose boxes say which names there are


@node("training.condition_on_class_token")
def condition_on_class_token(
    words: TextEncoder | None = None,
    *,
    width: Width = 128,
    tokens: Annotated[int, Field(ge=1, le=1024)] = 1,
) -> Conditioner:
    """Tell a denoiser the items' label as learnt tokens that it attends to. Nothing is told by a further class.

    words: the tokens begin as what this text encoder makes of "a" and the class's name; without it, at random.
    width: of the tokens: what the denoiser's attention reads.
    tokens: of a class. One is the paper's, and begins as the name's last word; more, as the text's first ones.

    Source: Rombach et al. 2022, appendix E.1.
    Raises: UserError: a data set without labels, when training starts.
    """
    return ClassTokenConditioner(words, width, tokens)


@node("training.condition_on_layout")
def condition_on_layout(
    words: TextEncoder | None = None,
    *,
    objects: Few = 2,
    side: Annotated[int, Field(ge=2, le=1024)] = 32,
    width: Width = 128,
    layers: Few = 2,
    heads: Few = 4,
    bound: bool = False,
) -> Conditioner:
    """Tell a denoiser the items' boxes with names, by a transformer over their tokens; no boxes tell nothing.

    words: the token of each name begins as what this text encoder makes of it; without it, at random.
    objects: most boxes of an item.
    side: a box's corner is told as the nearest point of a grid of side times side.
    width: of the tokens: what the denoiser's attention reads.
    layers: of the transformer. heads: of its attention.
    bound: a name's token begins with its corners added to it, so that which name belongs where need not be learnt;
    the paper's do not.

    Source: Rombach et al. 2022, section 4.3 and appendix E.
    Raises: UserError: a data set without boxes, or with more of them, when training starts.
    """
    return LayoutConditioner(
        words, objects=objects, side=side, width=width, layers=layers, heads=heads, bound=bound
    )


@dataclass(frozen=True, eq=False)
class ClassTokenConditioner(Conditioner):
    """Fields as in `training.condition_on_class_token`."""

    words: TextEncoder | None = None
    width: int = 128
    tokens: int = 1

    def open(self, ctx: Context, reader: Any, seed: int) -> ClassToken:
        from mezzotint_models import start_network

        names = list(getattr(reader, "label_names", ()))
        if not names:
            raise UserError(
                "training.condition_on_class_token: the data set has no labels; smallworld.dataset gives them "
                'with "label" set'
            )
        module = start_network(
            "mezzotint.class_tokens", {"names": names, "width": self.width, "tokens": self.tokens}
        )
        if self.words is not None:
            vectors, empty = _meanings(ctx, self.words, names, self.width, self.tokens)
            _fill(module.embedding.weight, [*vectors, empty])
        return ClassToken(module)


class ClassToken(Conditions):
    """Items' "label", an integer."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.modules = {"labels": module}

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        import torch

        return {"label": torch.tensor([int(item["label"]) for item in items])}

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        from mezzotint import Conditioning

        return Conditioning(context=self.module(rows["label"].masked_fill(dropped, self.module.null)))

    def parts(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        return {"labels": pack_network(self.module, label_encoder={"kind": "class"})}


@dataclass(frozen=True, eq=False)
class LayoutConditioner(Conditioner):
    """Fields as in `training.condition_on_layout`."""

    words: TextEncoder | None = None
    objects: int = 2
    side: int = 32
    width: int = 128
    layers: int = 2
    heads: int = 4
    bound: bool = False

    def open(self, ctx: Context, reader: Any, seed: int) -> Layouts:
        from mezzotint_models import start_network

        names = _names(reader)
        config = {
            "names": names, "side": self.side, "objects": self.objects, "width": self.width, "layers": self.layers,
            "heads": self.heads, "bound": self.bound,
        }  # fmt: skip
        module = start_network("mezzotint.layout_encoder", config)
        if self.words is not None:
            vectors, empty = _meanings(ctx, self.words, names, self.width)
            _fill(module.name_embedding.weight, vectors)
            _fill(module.absent, empty)
        return Layouts(module)


class Layouts(Conditions):
    """Items' "boxes": [{"what": name, "box": [left, top, right, bottom]}, ...]."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.modules = {"layout": module}

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        import torch

        from mezzotint_models import read_boxes

        grid = self.module.grid
        found = [read_boxes(item.get("boxes"), grid, "training.condition_on_layout: boxes") for item in items]
        return {"layout": torch.tensor([grid.tokens(boxes) for boxes in found])}

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        from mezzotint import Conditioning

        tokens = rows["layout"].masked_fill(dropped[:, None], self.module.grid.padding)
        return Conditioning(context=self.module(tokens))

    def parts(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        return {"layout": pack_network(self.module, label_encoder={"kind": "layout"})}


def _names(reader: Any) -> list[str]:
    """What the first items' boxes are called, sorted. Raises: UserError: there are none."""
    found: set[str] = set()
    for item in range(min(len(reader), _LOOKED_AT)):
        boxes = reader.boxes(item) if hasattr(reader, "boxes") else reader[item].get("boxes", ())
        found.update(box["what"] for box in boxes)
        if not found:
            break
    if not found:
        raise UserError(
            "training.condition_on_layout: the items have no boxes, as those of smallworld.dataset have: "
            '{"boxes": [{"what": name, "box": [left, top, right, bottom]}]}'
        )
    return sorted(found)


def _meanings(
    ctx: Context, words: TextEncoder, names: Sequence[str], width: int, tokens: int = 1
) -> tuple[list[Tensor], Tensor]:
    """The encoder's vector at the last word of each name, and at the end mark of the empty text.

    tokens: above 1, the first so many of each text instead, in a row.
    Raises: UserError: an encoder of another width, or of shorter texts.
    """
    import torch

    model = ctx.realise(words)
    end = int(model.tokenizer.eos_token_id)
    found = []
    with torch.no_grad():
        for text in (*(f"a {name}" for name in names), ""):
            ids = model.tokens([text])[0].tolist()
            context = model.encode([text])[0][0].float().cpu()
            if context.shape[-1] != width or len(context) < tokens:
                raise UserError(
                    f"the words of this text encoder are {context.shape[-1]} wide, wanted {width}: set width; it "
                    f"has {len(context)} tokens, wanted {tokens}"
                )
            last = max(ids.index(end) - (1 if text else 0), 0)
            found.append(context[last] if tokens == 1 else context[:tokens].flatten())
    return found[:-1], found[-1]


def _fill(parameter: Tensor, vectors: Any) -> None:
    import torch

    with torch.no_grad():
        parameter.copy_(torch.stack(vectors) if isinstance(vectors, list) else vectors)
