"""Reading one part's tensors from any layout, and putting them into a network that was never initialised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint import Context, Recipe, UserError
from mezzotint_models.description import read_header, read_json
from mezzotint_models.original import PREFIXES

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["PARTS", "check_fit", "compute_dtype", "folder_tensors", "load_module", "nbytes", "read_tensors"]

PARTS = ("unet", "vae", "text_encoder")


def compute_dtype(recipe: Recipe, ctx: Context) -> torch.dtype:
    """The type that a recipe's model computes in: its own, or the run's."""
    import torch

    named = recipe.config.get("dtype", "auto")
    return ctx.dtype if named == "auto" else getattr(torch, named)


def nbytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def load_module(
    recipe: Recipe,
    part: str,
    make: Callable[[], nn.Module],
    ctx: Context,
    convert: Callable[..., Any] | None = None,
) -> nn.Module:
    """The network of one part with its weights: frozen, in evaluation mode, on the context's device.

    make: builds the network; it runs on the meta device, so nothing is initialised or allocated.
    convert: from the original layout's names to the network's.
    Raises: UserError: a configuration that makes no network, tensors missing, unknown or of another shape.
    """
    import torch

    try:
        with torch.device("meta"):
            module = make()
    except Exception as error:
        raise UserError(
            f"{recipe.source.uri}: the configuration of its {part} makes no network: {error}"
        ) from error
    layout = recipe.config["layout"]
    tensors: Mapping[str, Tensor] = read_tensors(Path(recipe.source.path), layout, part)
    if convert is not None:
        tensors = convert(tensors, module)
    check_fit(module.state_dict(), tensors, f"{recipe.source.uri}: {part}")
    dtype = compute_dtype(recipe, ctx)
    # Copies: a file that is replaced while it is mapped would change a loaded model, or end the process.
    placed = {
        name: tensor.to(ctx.device, dtype if tensor.is_floating_point() else None, copy=True)
        for name, tensor in tensors.items()
    }
    module.load_state_dict(placed, assign=True)
    return module.eval().requires_grad_(False)


def read_tensors(path: Path, layout: str, part: str) -> dict[str, Tensor]:
    """The tensors of `part`, mapped from disk.

    Original names keep their prefix, since diffusers' converters look for it; the other layouts have none.
    Raises: UserError: missing, damaged or pickled weights.
    """
    if layout == "folder":
        # A language model is a folder of its own, without parts.
        stem = "model" if part in ("", "text_encoder") else "diffusion_pytorch_model"
        return folder_tensors(path / part, stem)
    if layout == "packed":
        return {name.removeprefix(f"{part}."): t for name, t in _read(path, f"{part}.").items()}
    return _read(path, PREFIXES[part])


def folder_tensors(folder: Path, stem: str) -> dict[str, Tensor]:
    """The tensors of a folder with one network, mapped from disk: STEM.safetensors, whole or in shards.

    Raises: UserError: missing, damaged or pickled weights.
    """
    found: dict[str, Tensor] = {}
    for file in _folder_files(folder, stem):
        found.update(_read(file, ""))
    return found


def _read(path: Path, prefix: str) -> dict[str, Tensor]:
    from safetensors import safe_open

    shapes, _ = read_header(path)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in shapes if name.startswith(prefix)}


def _folder_files(folder: Path, stem: str) -> list[Path]:
    """A part's weight files: whole, half precision, or in shards named by an index."""
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / name).is_file():
            return [folder / name]
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        names = set(read_json(index).get("weight_map", {}).values())
        if names and all(isinstance(n, str) and "/" not in n and "\\" not in n for n in names):
            return [folder / name for name in sorted(names)]
        raise UserError(f"{index}: names no shards, or shards outside its folder")
    pickled = next(folder.glob("*.bin"), None)
    if pickled:
        raise UserError(
            f"{folder}: has only the pickle {pickled.name}, which can run any code when loaded; get or make "
            f"{stem}.safetensors (diffusers: save_pretrained(..., safe_serialization=True))"
        )
    raise UserError(f"{folder}: has no {stem}.safetensors")


def check_fit(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor], where: str) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in got]
    problems += [f"{name} is not known" for name in got if name not in wanted]
    problems += [
        f"{name} has shape {list(got[name].shape)}, wanted {list(wanted[name].shape)}"
        for name in wanted
        if name in got and got[name].shape != wanted[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise UserError(f"{where} does not fit its configuration: {'; '.join(problems[:4])}{more}")
