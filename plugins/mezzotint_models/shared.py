"""Weights without what a bundled checkpoint has already: a network tuned in part ships the tuned part only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint import Source, UserError, Weights, node
from mezzotint_models.networks import parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["leave_out", "put_back", "trunk_tensors"]

PREFIX = "network."
"""Before diffusers' own names, in networks of models.unet."""


@node("models.leave_out")
def leave_out(weights: Weights, *, source: Source) -> Weights:
    """Weights without the tensors that a checkpoint's U-Net has too, bit for bit: those that tuning left alone.

    weights: of a network of models.unet that started from that U-Net, alone or with others.
    source: the checkpoint, such as bundled:smallworld, or a weights file that a training graph wrote.
    Raises: UserError: nothing is the same in both.
    """
    known, made, left = trunk_tensors(source), {}, 0
    for name, tensor in weights.tensors.items():
        other = known.get(name.rpartition("/")[2])
        same = other is not None and other.shape == tensor.shape and bool((other.to(tensor) == tensor).all())
        left += same
        if not same:
            made[name] = tensor
    if not left:
        raise UserError(f"models.leave_out: the weights have no tensor in common with {source.uri}")
    return weights.replace(tensors=made)


@node("models.put_back")
def put_back(weights: Weights, *, source: Source, trunk: Source | None = None) -> Weights:
    """Weights with what models.leave_out took out of them.

    weights: as that gave them.
    source: the checkpoint or file that it was given.
    trunk: the checkpoint that this file has left something out against itself.
    Raises: UserError: something that the network needs is in neither.
    """
    from mezzotint_models.networks import make_network

    known = {**(trunk_tensors(trunk) if trunk else {}), **trunk_tensors(source)}
    made = dict(weights.tensors)
    several = weights.target == "parts"
    for part, one in parts_of(weights).items():
        for name, like in make_network(one.meta, {**known, **one.tensors}).state_dict().items():
            if name in one.tensors:
                continue
            if name not in known or known[name].shape != like.shape:
                raise UserError(f"models.put_back: {name} is neither in the weights nor in {source.uri}")
            made[f"{part}/{name}" if several else name] = known[name].clone()
    return weights.replace(tensors=made)


def trunk_tensors(source: Source) -> Mapping[str, Tensor]:
    """A checkpoint's U-Net as it is stored, by the names that networks of models.unet have.

    Of a weights file that a training graph wrote, the tensors of all its parts by the names that they have there.
    """
    from mezzotint_models.description import PACKED_KEY, describe, read_header, refuse_pickle
    from mezzotint_models.packed import load_weights
    from mezzotint_models.weights import read_tensors

    path = Path(source.path)
    if path.is_file():
        refuse_pickle(path)
        header = read_header(path)[1]
        if PACKED_KEY not in header and ("parts" in header or "class" in header):
            return {name.rpartition("/")[2]: tensor for name, tensor in load_weights(source).tensors.items()}
    found = describe(source)
    if found.layout == "original":
        raise UserError(f"{source.uri}: wanted a diffusers folder or a file of models.pack, got an original file")
    tensors: dict[str, Any] = dict(read_tensors(Path(source.path), found.layout, "unet"))
    return {PREFIX + name: tensor for name, tensor in tensors.items()}
