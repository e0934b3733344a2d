"""Weights files that say what they are: the numbers, the networks they make, and the part those play.

A file is what the output of a training graph is written as: a safetensors file whose header has `class`, `config`
and the role records of `networks`, or several networks as parts. It is read into a value, or a recipe names it and
its numbers are read when a node needs them. A value that came along an edge makes the same recipe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Context, Recipe, Source, UserError, Weights, node
from mezzotint_models.description import read_header, refuse_pickle
from mezzotint_models.networks import fill, make_network, part_of

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["cast", "load_weights", "meta_of", "network_of", "recipe_for", "record_of"]

Part = Annotated[str, Field(max_length=200)]
_KINDS: Mapping[str, Literal["full", "difference", "low_rank", "rows"]] = {
    "full": "full", "difference": "difference", "low_rank": "low_rank", "rows": "rows",
}  # fmt: skip


@node("models.load_weights")
def load_weights(source: Source) -> Weights:
    """A weights file that a training graph wrote, as a value: for sampling a family, as a start, as a prior.

    source: a .safetensors file with its configuration in the header, or its bundled name.
    Raises: UserError: a pickle, a file that is cut off, or one that does not say which network it is.
    """
    from safetensors import safe_open

    described = _described(source)
    with safe_open(source.path, framework="pt") as file:
        # Copies: a file that is replaced while it is mapped would change the value.
        tensors = {name: file.get_tensor(name).clone() for name in described.tensors}
    return described.replace(tensors=tensors)


@node("models.cast")
def cast(weights: Weights, *, dtype: Literal["float16", "bfloat16", "float32"] = "float16") -> Weights:
    """The same weights in another type: half precision is half the file.

    weights: of any kind; integers stay as they are.
    dtype: of floating tensors.
    Raises: UserError: a number that is too large for that type.
    """
    import torch

    wanted = getattr(torch, dtype)
    made = {name: t.to(wanted) if t.is_floating_point() else t for name, t in weights.tensors.items()}
    for name, tensor in made.items():
        if tensor.is_floating_point() and weights.tensors[name].isfinite().all() > tensor.isfinite().all():
            raise UserError(f"models.cast: {name} has numbers that {dtype} cannot hold; take bfloat16 or float32")
    return weights.replace(tensors=made)


def recipe_for(
    role: str, weights: Weights | None, source: Source | None, part: str = "", *, node: str = ""
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """(the meta of the network that has the role, `source`, `weights` and `config` of its recipe).

    weights, source: a value or a file, exactly one of them. part: the name of the network, where several have the
    role. node: for messages. The recipe's own fields come from `meta[role]`.
    Raises: UserError: both or neither are given; no network, or several, with the role; a damaged file.
    """
    where = f"{node}: " if node else ""
    if (weights is None) == (source is None):
        raise UserError(f"{where}give either weights along an edge, or the name of a file as source")
    try:
        found = part_of(_described(source) if weights is None else weights, part or role)
        record_of(found.meta, role)
    except UserError as error:
        raise UserError(f"{where}{_name(source)}{error}") from error
    config = {"part": part or role, "dtype": "auto"}
    if weights is None:
        return found.meta, {"source": source, "config": config}
    digest = _digest(found)
    carried = Source(uri=f"weights:{digest[:16]}", path="", fingerprint=digest)
    return found.meta, {"source": carried, "config": {**config, "part": ""}, "weights": found}


def record_of(meta: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    """What a network's meta says of a role. Raises: UserError: nothing, or nothing that makes sense."""
    record = meta.get(role)
    if not isinstance(record, Mapping):
        raise UserError(f"the {meta.get('class', 'network')} says nothing of itself as {role!r}")
    return record


def meta_of(recipe: Recipe) -> Mapping[str, Any]:
    """What the weights of a recipe from `recipe_for` say of themselves: class, config and the role records.

    Raises: UserError: a damaged file.
    """
    if recipe.weights is not None:
        return _carried(recipe).meta
    return part_of(_described(recipe.source), str(recipe.config["part"])).meta


def network_of(recipe: Recipe, ctx: Context) -> nn.Module:
    """The network of a recipe from `recipe_for`, frozen, on the context's device and in its type.

    Raises: UserError: as `build_network`, with the file's name.
    """
    from mezzotint_models.weights import compute_dtype

    try:
        weights = weights_of(recipe)
        network = make_network(weights.meta, weights.tensors)
        return fill(network, weights.tensors, ctx.device, compute_dtype(recipe, ctx))
    except UserError as error:
        raise UserError(f"{recipe.source.uri}: {error}") from error


def weights_of(recipe: Any) -> Weights:
    """The one part that a recipe, or a patch with a recipe's fields, names: mapped from its file, or as it came.

    Raises: UserError: as `part_of`.
    """
    return _carried(recipe) if recipe.weights is not None else _read(recipe)


def _carried(recipe: Recipe) -> Weights:
    if not isinstance(recipe.weights, Weights):
        raise UserError(f"wanted weights, got a {type(recipe.weights).__name__}")
    return part_of(recipe.weights, str(recipe.config["part"]))


def _read(recipe: Recipe) -> Weights:
    """The one part that a recipe names, mapped from its file."""
    from safetensors import safe_open

    described = _described(recipe.source)
    part = part_of(described, str(recipe.config["part"]))
    with safe_open(recipe.source.path, framework="pt") as file:
        return part.replace(tensors={name: file.get_tensor(key) for name, key in part.tensors.items()})


def _described(source: Source | None) -> Weights:
    """A file's header as a value: in place of each tensor, its name in the file."""
    assert source is not None
    path = Path(source.path)
    if not path.is_file():
        raise UserError(f"{source.uri}: wanted a .safetensors file, there is none at {path}")
    refuse_pickle(path)
    shapes, header = read_header(path)
    meta = {
        key: _parsed(key, text)
        for key, text in sorted(header.items())
        if key != "format" and "mezzotint." not in key
    }
    if not ("class" in meta and "config" in meta) and "parts" not in meta:
        raise UserError(
            f"{source.uri}: its header does not say which network it is (class and config, or parts); wanted a "
            "weights file that a training graph wrote"
        )
    kind = header.get("mezzotint.kind", "full")
    if kind not in _KINDS:
        raise UserError(f"{source.uri}: its header says that it holds {kind!r}, which nothing here is")
    target = header.get("mezzotint.target", "parts" if "parts" in meta else str(meta.get("class")))
    return Weights({name: name for name in sorted(shapes)}, kind=_KINDS[kind], target=target, meta=meta)


def _parsed(key: str, text: str) -> Any:
    if key == "class":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
    except RecursionError as error:
        raise UserError(f"the header's {key!r} is nested too deep to be a record") from error


def _name(source: Source | None) -> str:
    return f"{source.uri}: " if source is not None else ""


def _digest(weights: Weights) -> str:
    """sha256 of the numbers and what they are: equal weights share one loaded model."""
    digest = hashlib.sha256(json.dumps(dict(weights.meta), sort_keys=True, default=dict).encode())
    for name in sorted(weights.tensors):
        tensor: Tensor = weights.tensors[name]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
