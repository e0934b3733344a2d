"""The text encoder: CLIP's tokenizer and text model, from transformers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, Context, Source, TextEncoder, UserError
from mezzotint_models.attention import transformers_attention
from mezzotint_models.description import tokenizer_files
from mezzotint_models.weights import load_module, nbytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

__all__ = ["ClipText", "clip_tokenizer", "load_clip_text"]


class ClipText:
    """A realised text encoder. `tokenizer` and `module` are transformers' own, for patches.

    length: tokens per prompt, the start and end marks included.
    """

    def __init__(self, module: nn.Module, tokenizer: Any) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.length = min(int(tokenizer.model_max_length), int(module.config.max_position_embeddings))
        self.room = self.length - 2
        self.layers = int(module.config.num_hidden_layers)

    @property
    def nbytes(self) -> int:
        return nbytes(self.module)

    def lost(self, text: str) -> str:
        """The end of a text that is cut because the model reads `length` tokens; empty if it fits."""
        ids = self.tokenizer(text, verbose=False).input_ids
        return "" if len(ids) <= self.length else self.tokenizer.decode(ids[self.length - 1 : -1])

    def tokens(self, texts: list[str]) -> Tensor:
        """Token ids [B, length], padded as the model was trained; longer texts are cut."""
        made = self.tokenizer(
            texts,
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
            verbose=False,
        )
        ids: Tensor = made.input_ids
        return ids

    def condition(self, texts: list[str], clip_skip: int = 0) -> Conditioning:
        """`encode` as a conditioning; no mask, as Stable Diffusion has none."""
        context, pooled = self.encode(texts, clip_skip)
        return Conditioning(context=context, pooled=pooled)

    def encode(self, texts: list[str], clip_skip: int = 0) -> tuple[Tensor, Tensor]:
        """Context [B, L, D] after the final layer norm, and pooled [B, D], in the model's own type.

        clip_skip: layers to leave out at the end.
        """
        ids = self.tokens(texts).to(next(self.module.parameters()).device)
        if not clip_skip:
            out = self.module(input_ids=ids)
            return out.last_hidden_state, out.pooler_output
        out = self.module(input_ids=ids, output_hidden_states=True)
        # transformers 5.6 took the inner module away.
        inner = getattr(self.module, "text_model", self.module)
        return inner.final_layer_norm(out.hidden_states[-(clip_skip + 1)]), out.pooler_output


def load_clip_text(recipe: TextEncoder, ctx: Context) -> ClipText:
    """Loader `models.clip_text`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = _tokenizer(_tokenizer_source(recipe))
    config = dict(recipe.config["model"])

    def make() -> nn.Module:
        return CLIPTextModel(CLIPTextConfig.from_dict(config, attn_implementation=transformers_attention()))

    module = load_module(recipe, "text_encoder", make, ctx, _fitted_names)
    # The one buffer that no file holds.
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            _fill_positions(module, name, ctx.device)
    return ClipText(module, tokenizer)


def _tokenizer_source(recipe: TextEncoder) -> Source:
    named = recipe.config.get("tokenizer")
    if named:
        return Source(**named)
    if recipe.config["layout"] != "original":
        return recipe.source
    raise UserError(
        f"{recipe.source.uri}: a single original file has no tokenizer. Give models.checkpoint the input "
        "'config': a diffusers folder of the same family, where tokenizer/vocab.json and merges.txt lie"
    )


def _tokenizer(source: Source) -> Any:
    return clip_tokenizer(tokenizer_files(source), source.uri)


def clip_tokenizer(files: Mapping[str, str], where: str) -> Any:
    """CLIP's tokenizer out of its files' texts by name. Raises: UserError: files are missing or damaged."""
    from transformers import CLIPTokenizer

    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= set(files):
        raise UserError(f"{where}: its tokenizer needs vocab.json and merges.txt, or tokenizer.json")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, Path(name).name).write_text(text, "utf-8")
        try:
            return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise UserError(f"{where}: its tokenizer cannot be read: {error}") from error


def _fitted_names(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Names with or without `text_model.`, as this release of transformers has them."""
    wrapped = hasattr(module, "text_model")
    fitted = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix("cond_stage_model.transformer.").removeprefix("text_model.")
        if not bare.endswith("position_ids"):
            fitted[f"text_model.{bare}" if wrapped else bare] = tensor
    return fitted


def _fill_positions(module: nn.Module, name: str, device: str) -> None:
    import torch

    owner, _, leaf = name.rpartition(".")
    if leaf != "position_ids":
        raise UserError(f"the text encoder has a buffer {name!r} that no file holds")
    count = module.config.max_position_embeddings
    module.get_submodule(owner).register_buffer(
        leaf, torch.arange(count, device=device).unsqueeze(0), persistent=False
    )
