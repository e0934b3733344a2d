"""Text encoders out of weights: CLIP's text tower, alone or with its projection, and GLIDE's transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, Context, Source, TextEncoder, UserError, Weights, node
from mezzotint_models.clip_folder import FOLDER, folder_network, folder_record, is_folder
from mezzotint_models.clip_text import ClipText, clip_tokenizer
from mezzotint_models.packed import Part, network_of, recipe_for, record_of
from mezzotint_models.weights import nbytes

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ClipTextTower", "GlideTextEncoder", "load_text_encoder", "text_encoder"]

LOADER = "models.packed_text_encoder"


@node("models.text_encoder")
def text_encoder(weights: Weights | None = None, *, source: Source | None = None, part: Part = "") -> TextEncoder:
    """A text encoder that a training graph made, from its file or the value; or the text tower of a CLIP folder.

    weights: what training gave; in its place, `source`.
    source: a .safetensors file or its bundled name; or a folder with CLIP, as transformers saves it.
    part: which network of those, where several encode text.

    CLIP's tower gives the projection into the common space as pooled [B, D], of length 1.
    Raises: UserError: both or neither are given; no text encoder in there, or several; a damaged or foreign file.
    """
    where = "models.text_encoder"
    if weights is None and source is not None and is_folder(source):
        record, recipe = folder_record(source, "text_encoder", where)
    else:
        meta, recipe = recipe_for("text_encoder", weights, source, part, node=where)
        record = record_of(meta, "text_encoder")
    files = record.get("tokenizer")
    if not isinstance(files, Mapping) or not files:
        raise UserError(f"{where}: the weights' record 'text_encoder' has no tokenizer")
    config = {**recipe.pop("config"), "record": dict(record)}
    return TextEncoder(**recipe, loader=LOADER, config=config)


class ClipTextTower(ClipText):
    """CLIP's text tower with its projection. `module` is the tower, `clip` transformers' CLIPModel."""

    def __init__(self, clip: Any, tokenizer: Any) -> None:
        super().__init__(clip.text_model, tokenizer)
        self.clip = clip

    def encode(self, texts: list[str], clip_skip: int = 0) -> tuple[Tensor, Tensor]:
        """Context [B, L, D], and the embedding [B, E] of length 1, whose last layer is never left out."""
        from torch.nn.functional import normalize

        context, _ = super().encode(texts, clip_skip)
        last = context if not clip_skip else super().encode(texts)[0]
        pooled = self.clip.text_projection(self.at_end(last, self.tokens(texts).to(last.device)))
        return context, normalize(pooled, dim=-1)

    def at_end(self, states: Tensor, ids: Tensor) -> Tensor:
        """The states [B, D] at each first end mark, which need not have the highest id."""
        import torch

        first = (ids == self.tokenizer.eos_token_id).int().argmax(1)
        return states[torch.arange(len(ids), device=states.device), first]


class MaskedClipText(ClipText):
    """A text model whose tokens behind the end mark do not count: the conditioning's mask says so."""

    def condition(self, texts: list[str], clip_skip: int = 0) -> Conditioning:
        """As a ClipText's, with a mask [B, L], 1 up to the first end mark and there."""
        made = super().condition(texts, clip_skip)
        assert made.context is not None
        ended = (self.tokens(texts) == self.tokenizer.eos_token_id).long().cumsum(1)
        counts = (ended == 0) | ((ended == 1) & (ended.cumsum(1) == 1))
        return made.replace(mask=counts.to(made.context.device, made.context.dtype))


class GlideTextEncoder(ClipText):
    """GLIDE's transformer with its tokenizer. layers: 0, none may be skipped."""

    def __init__(self, module: nn.Module, tokenizer: Any) -> None:
        self.module, self.tokenizer = module, tokenizer
        self.length = int(module.config["length"])  # type: ignore[index]
        self.room, self.layers = self.length - 2, 0

    @property
    def nbytes(self) -> int:
        return nbytes(self.module)

    def encode(self, texts: list[str], clip_skip: int = 0) -> tuple[Tensor, Tensor]:
        """Tokens [B, L, D], those of padding included, and pooled [B, P]."""
        context, pooled = self.module(self.tokens(texts).to(next(self.module.parameters()).device))
        return context, pooled


def load_text_encoder(recipe: TextEncoder, ctx: Context) -> ClipText:
    """Loader `models.packed_text_encoder`."""
    record = recipe.config["record"]
    tokenizer = clip_tokenizer(record["tokenizer"], recipe.source.uri)
    if recipe.config.get("layout") == FOLDER:
        return ClipTextTower(folder_network(recipe, ctx), tokenizer)
    network = network_of(recipe, ctx)
    match type(network).__name__:
        case "CLIPModel":
            return ClipTextTower(network, tokenizer)
        case "CLIPTextModel":
            return (MaskedClipText if record.get("masked") else ClipText)(network, tokenizer)
        case "GlideText":
            return GlideTextEncoder(network, tokenizer)
        case other:
            raise UserError(f"{recipe.source.uri}: a {other} is no text encoder that models.text_encoder knows")
