"""What a denoiser can be told: a class, a text by a frozen encoder, a text by an encoder that learns along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mezzotint import Context, TextEncoder, UserError
from mezzotint_training.conditioner import Conditioner, Conditions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mezzotint import Conditioning, Weights

__all__ = ["LabelConditioner", "TextConditioner", "TrainedTextConditioner"]


@dataclass(frozen=True, eq=False)
class LabelConditioner(Conditioner):
    """A class per item. classes: how many; the null class is the next number."""

    classes: int = 0

    def open(self, ctx: Context, reader: Any, seed: int) -> Labels:
        names = tuple(getattr(reader, "label_names", ()))
        if names and len(names) != self.classes:
            raise UserError(
                f"training.condition_on_labels: classes is {self.classes}, and the data set has {len(names)} "
                f"({', '.join(names)}): set classes to {len(names)}, for the architecture too"
            )
        return Labels(self.classes, names)


class Labels(Conditions):
    """Items' "label", an integer."""

    def __init__(self, classes: int, names: Sequence[str]) -> None:
        self.classes, self.names = classes, list(names)

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        import torch

        for item in items:
            if "label" not in item:
                raise UserError(
                    f"training.condition_on_labels: the items have no label, but {', '.join(sorted(item))}. "
                    'smallworld.dataset gives labels with "label" set; leave the conditioner out for none'
                )
            if not 0 <= int(item["label"]) < self.classes:
                raise UserError(
                    f"training.condition_on_labels: a label is {item['label']}, wanted 0 to {self.classes - 1}: "
                    "raise classes, for the architecture too"
                )
        return {"label": torch.tensor([int(item["label"]) for item in items])}

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        from mezzotint import Conditioning

        return Conditioning(label=rows["label"].masked_fill(dropped, self.classes))

    def meta(self) -> dict[str, Any]:
        return {"labels": self.names}


def captions_of(items: Sequence[Mapping[str, Any]], node: str) -> list[str]:
    """The items' captions. Raises: UserError: there is none."""
    for item in items:
        if not isinstance(item.get("caption"), str):
            raise UserError(
                f"{node}: the items have no caption, but {', '.join(sorted(item))}. Take a data set with "
                "captions, or another conditioner"
            )
    return [item["caption"] for item in items]


@dataclass(frozen=True, eq=False)
class TextConditioner(Conditioner):
    """Captions by an encoder that stays as it is. A dropped caption is the empty one."""

    encoder: TextEncoder

    def open(self, ctx: Context, reader: Any, seed: int) -> FrozenText:
        return FrozenText(ctx.realise(self.encoder))


class FrozenText(Conditions):
    """Items' captions as tokens and one vector, encoded once each."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.empty = {name: value[0] for name, value in self._encoded("").items()}

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        import torch

        found = [self._encoded(text) for text in captions_of(items, "training.condition_on_text")]
        return {name: torch.cat([one[name] for one in found]) for name in self.empty}

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        import torch

        from mezzotint import Conditioning

        told = {}
        for name, null in self.empty.items():
            value = rows[name]
            where = dropped.view(-1, *[1] * (value.ndim - 1))
            told[name] = torch.where(where, null.to(value), value)
        for name in ("context", "pooled"):
            if name in told:
                told[name] = told[name].float()
        return Conditioning(**told)

    def _encoded(self, text: str) -> dict[str, Tensor]:
        """One text alone: what comes of it does not depend on the others'."""
        import torch

        with torch.no_grad():
            found = self.model.condition([text])
        # In half precision, which is what encoders' weights ship in: a data set's texts stay in memory.
        told = {name: getattr(found, name) for name in ("context", "pooled", "mask")}
        return {
            name: value.detach().cpu().half() if value.is_floating_point() else value.cpu()
            for name, value in told.items()
            if value is not None
        }


@dataclass(frozen=True, eq=False)
class TrainedTextConditioner(Conditioner):
    """Captions by a network that learns along with the denoiser.

    network: its class in the registry of networks. config: its arguments, without what the tokenizer decides.
    start: a text encoder to go on from, in place of a network with random numbers.
    """

    network: str
    config: Mapping[str, Any] = field(default_factory=dict)
    start: TextEncoder | None = None

    def open(self, ctx: Context, reader: Any, seed: int) -> TrainedText | GoneOnText:
        if not hasattr(reader, "tokenizer_files"):
            raise UserError(
                "training.condition_on_trained_text: this data set has no tokenizer, as the small world has; take "
                "training.condition_on_text with a text encoder that has one"
            )
        if self.start is not None:
            return GoneOnText(ctx.realise(self.start), reader.tokenizer_files())
        return TrainedText(self.network, dict(self.config), reader.tokenizer_files())


class TrainedText(Conditions):
    """Items' captions as token ids; a network makes tokens and one vector of them at every step.

    The network maps ids [B, L] int64 to (tokens [B, L, D], pooled [B, D]).
    """

    def __init__(self, network: str, config: Mapping[str, Any], files: Mapping[str, str]) -> None:
        from mezzotint_models import start_network
        from mezzotint_training.reading import load_tokenizer, tokenise

        self.files, self.tokenizer, self.tokenise = dict(files), load_tokenizer(dict(files)), tokenise
        self.empty = tokenise(self.tokenizer, [""])
        known = {
            "vocabulary": len(self.tokenizer), "length": self.empty.shape[1], "end": self.tokenizer.eos_token_id,
        }  # fmt: skip
        self.module: nn.Module = start_network(network, {**config, **known})
        self.modules = {"text": self.module}

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return {"ids": self.tokenise(self.tokenizer, captions_of(items, "training.condition_on_trained_text"))}

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        import torch

        from mezzotint import Conditioning

        ids = torch.where(dropped[:, None], self.empty.to(rows["ids"].device), rows["ids"])
        tokens, pooled = self.module(ids)
        return Conditioning(context=tokens, pooled=pooled)

    def parts(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        return {"text": pack_network(self.module, text_encoder={"kind": "glide", "tokenizer": self.files})}


class GoneOnText(Conditions):
    """Items' captions by a copy of CLIP's text model, which is trained on."""

    def __init__(self, encoder: Any, files: Mapping[str, str]) -> None:
        import copy

        from mezzotint_training.reading import load_tokenizer

        known = load_tokenizer(dict(files)).get_vocab()
        module = getattr(encoder, "module", None)
        if type(module).__name__ != "CLIPTextModel" or encoder.tokenizer.get_vocab() != known:
            raise UserError(
                "training.condition_on_trained_text: start must be a text encoder of CLIP's kind with the data "
                "set's own tokens, such as that of bundled:smallworld; leave start out to begin anew"
            )
        self.files, self.tokens = dict(files), encoder.tokens
        self.module: nn.Module = copy.deepcopy(module).float().requires_grad_(True)
        self.modules = {"text": self.module}
        self.empty = self.tokens([""])

    def read(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return {"ids": self.tokens(captions_of(items, "training.condition_on_trained_text"))}

    def __call__(self, rows: Mapping[str, Tensor], dropped: Tensor) -> Conditioning:
        import torch

        from mezzotint import Conditioning

        ids = torch.where(dropped[:, None], self.empty.to(rows["ids"].device), rows["ids"])
        made = self.module(input_ids=ids)
        return Conditioning(context=made.last_hidden_state, pooled=made.pooler_output)

    def parts(self) -> dict[str, Weights]:
        from mezzotint_models import pack_network

        return {"text": pack_network(self.module, text_encoder={"kind": "clip", "tokenizer": self.files})}
