"""CLIP as transformers saves it: a folder with both towers, its configuration and one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint import Context, Recipe, Source, UserError
from mezzotint_models.description import read_header, read_json, tokenizer_files
from mezzotint_models.networks import fill, make_network

if TYPE_CHECKING:
    from torch import nn

__all__ = ["folder_network", "folder_record", "is_folder"]

FOLDER = "clip_folder"
MEAN, DEVIATION = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def is_folder(source: Source | None) -> bool:
    """Whether a source is a folder, which no file of ours is."""
    return source is not None and Path(source.path).is_dir()


def folder_record(source: Source, role: str, node: str) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """A role's record, and `source` and `config` of its recipe, from the configuration alone.

    role: "text_encoder" or "image_encoder".
    Raises: UserError: not CLIP, or files that are missing or damaged.
    """
    path = Path(source.path)
    if not (path / "config.json").is_file():
        raise UserError(f"{node}: {source.uri}: wanted a CLIP folder as transformers saves it, with config.json")
    config = read_json(path / "config.json")
    if config.get("model_type") != "clip" or not isinstance(config.get("vision_config"), dict):
        raise UserError(
            f"{node}: {source.uri}: wanted CLIP with both towers (model_type clip), got "
            f"{config.get('model_type')!r}. models.checkpoint reads a Stable Diffusion folder"
        )
    recipe = {"source": source, "config": {"layout": FOLDER, "dtype": "auto"}}
    if role == "text_encoder":
        return {"kind": "clip", "tokenizer": tokenizer_files(source)}, recipe
    saved = path / "preprocessor_config.json"
    told = read_json(saved) if saved.is_file() else {}
    size = config["vision_config"].get("image_size", 224)
    return {"size": size, "mean": told.get("image_mean", MEAN), "std": told.get("image_std", DEVIATION)}, recipe


def folder_network(recipe: Recipe, ctx: Context) -> nn.Module:
    """The CLIPModel of a folder, frozen, on the context's device and in its type.

    Raises: UserError: weights that are missing, pickled, damaged or of another model.
    """
    from safetensors import safe_open

    from mezzotint_models.weights import compute_dtype

    folder = Path(recipe.source.path)
    file = folder / "model.safetensors"
    if not file.is_file():
        raise UserError(
            f"{recipe.source.uri}: has no model.safetensors; pickles (pytorch_model.bin) can run any code and are "
            "not read. transformers: CLIPModel.from_pretrained(folder).save_pretrained(folder)"
        )
    shapes, _ = read_header(file)
    with safe_open(file, framework="pt") as opened:
        # Older releases kept the count of positions among the numbers.
        tensors = {name: opened.get_tensor(name) for name in shapes if not name.endswith("position_ids")}
    try:
        meta = {"class": "CLIPModel", "config": read_json(folder / "config.json")}
        return fill(make_network(meta, tensors), tensors, ctx.device, compute_dtype(recipe, ctx))
    except UserError as error:
        raise UserError(f"{recipe.source.uri}: {error}") from error
