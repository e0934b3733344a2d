"""What a checkpoint holds, read from its configuration alone: no weights, no torch.

Three layouts: "folder" (a diffusers pipeline folder), "original" (one safetensors file with Stable Diffusion
1.x's own names) and "packed" (one safetensors file made by `models.pack`, its configuration in the header).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mezzotint import Source, UserError

__all__ = ["PACKED_KEY", "Description", "describe", "tokenizer_files"]

PACKED_KEY = "mezzotint.checkpoint"
"""The entry of a packed file's header that holds its configuration as JSON."""

_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
_TOKENIZER = (
    "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
_MAX_JSON = 64 << 20


@dataclass(frozen=True)
class Description:
    """The configurations of a checkpoint's parts.

    unet, vae, text_encoder, scheduler: the contents of their config files. tokenizer: the source (a folder
    or a packed file) that has the tokenizer's files, or None if they are not known.
    """

    layout: Literal["folder", "original", "packed"]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    tokenizer: Source | None


def describe(source: Source, config: Source | None = None) -> Description:
    """Read what `source` holds.

    config: a diffusers folder (weights not needed) whose configurations and tokenizer an original single
    file uses.
    Raises: UserError: a missing or damaged part, a pickle, a model of another family.
    """
    path = Path(source.path)
    if path.is_dir():
        return _checked(_folder(source), source)
    if not path.is_file():
        raise UserError(f"{source.uri}: no such file or folder: {path}")
    refuse_pickle(path)
    shapes, metadata = read_header(path)
    if PACKED_KEY in metadata:
        return _checked(_packed(source, metadata[PACKED_KEY]), source)
    return _checked(_original(source, shapes, config), source)


def refuse_pickle(path: Path) -> None:
    """Raises: UserError: for files that run code when loaded, and for anything that is not safetensors."""
    if path.suffix.lower() in _PICKLES:
        raise UserError(
            f"{path.name}: a pickle can run any code when it is loaded, so it is not read. Convert it once, "
            "where you trust it: safetensors.torch.save_file(torch.load(file, "
            "weights_only=True)['state_dict'], out)"
        )
    if path.suffix.lower() != ".safetensors":
        raise UserError(
            f"{path.name}: wanted a diffusers folder or a .safetensors file, got {path.suffix or 'a file'}"
        )


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Names and shapes of the tensors in a safetensors file, and its metadata; the data stays on disk.

    Raises: UserError: not safetensors, a header cut short or out of bounds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            return shapes, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path.name}: not a whole safetensors file: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises: UserError: missing, larger than 64 MiB, not JSON, not an object.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise UserError(f"{path}: larger than 64 MiB, which no configuration is")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: wanted a JSON object, got {type(found).__name__}")
    return found


def tokenizer_files(source: Source) -> dict[str, str]:
    """The tokenizer's files by name, with their text, from a folder or a packed file."""
    path = Path(source.path)
    if path.is_dir():
        folder = path / "tokenizer" if (path / "tokenizer").is_dir() else path
        found = [folder / name for name in _TOKENIZER if (folder / name).is_file()]
        return {file.name: file.read_text("utf-8") for file in found if file.stat().st_size <= _MAX_JSON}
    _, metadata = read_header(path)
    try:
        files = json.loads(metadata[PACKED_KEY])["tokenizer"]
        return {name: str(files[name]) for name in _TOKENIZER if name in files}
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{source.uri}: its header has no tokenizer") from error


def _folder(source: Source) -> Description:
    path = Path(source.path)
    if (path / "text_encoder_2").is_dir() or (path / "transformer").is_dir():
        raise UserError(
            f"{source.uri}: a pipeline with a second text encoder or a transformer (SDXL, SD3, Flux); "
            "supported are Stable Diffusion 1.x and 2.x folders"
        )
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        if not (path / part).is_dir():
            raise UserError(f"{source.uri}: a Stable Diffusion folder has a folder {part!r}, this one has not")
    return Description(
        "folder",
        read_json(path / "unet" / "config.json"),
        read_json(path / "vae" / "config.json"),
        read_json(path / "text_encoder" / "config.json"),
        read_json(path / "scheduler" / "scheduler_config.json"),
        source,
    )


def _packed(source: Source, text: str) -> Description:
    try:
        found = json.loads(text)
        parts = {part: dict(found[part]) for part in ("unet", "vae", "text_encoder", "scheduler")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{source.uri}: its header's {PACKED_KEY!r} is damaged: {error!r}") from error
    return Description("packed", tokenizer=source, **parts)


def _original(source: Source, shapes: Mapping[str, tuple[int, ...]], config: Source | None) -> Description:
    if config is not None:
        given = describe(config)
        return Description("original", given.unet, given.vae, given.text_encoder, given.scheduler, given.tokenizer)
    from mezzotint_models.original import configs_from_shapes

    return Description("original", tokenizer=None, **configs_from_shapes(shapes, source.uri))


def _checked(description: Description, source: Source) -> Description:
    """Only the three classes that the loaders know may be named: a config never chooses what code runs."""
    for part, wanted in _CLASSES.items():
        config = getattr(description, part)
        if part == "text_encoder":
            named = (config.get("architectures") or [wanted])[0]
        else:
            named = config.get("_class_name", wanted)
        if named != wanted:
            raise UserError(f"{source.uri}: its {part} is a {named}; supported is {wanted}")
    return description
