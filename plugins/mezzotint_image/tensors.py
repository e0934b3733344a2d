"""Weights, latents and conditioning as safetensors files, the same bytes every time."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, Latents, Weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["safetensors_bytes", "write_conditioning", "write_latents", "write_weights"]


def write_weights(weights: Weights, info: Any = None) -> list[bytes]:
    """The tensors under their own names; kind, target and meta in the header."""
    meta = {"format": "pt", "mezzotint.kind": weights.kind, "mezzotint.target": weights.target}
    for key, value in weights.meta.items():
        meta[str(key)] = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return [safetensors_bytes(weights.tensors, meta)]


def write_latents(latents: Latents, info: Any = None) -> list[bytes]:
    """Tensors `latents` and, if there is one, `mask`; space and downscale in the header."""
    tensors = {"latents": latents.data} | ({"mask": latents.mask} if latents.mask is not None else {})
    return [safetensors_bytes(tensors, {"space": latents.space, "downscale": str(latents.downscale)})]


def write_conditioning(conditioning: Conditioning, info: Any = None) -> list[bytes]:
    """Each tensor of the record under its field's name; a layout in the header."""
    fields = ("context", "mask", "pooled", "label", "concat", "low_res", "low_res_level", "fps")
    tensors = {name: getattr(conditioning, name) for name in fields}
    tensors |= {f"extra.{name}": value for name, value in conditioning.extra.items() if hasattr(value, "numel")}
    meta = {} if conditioning.layout is None else {"layout": json.dumps(conditioning.layout, sort_keys=True)}
    return [safetensors_bytes({n: t for n, t in tensors.items() if t is not None}, meta)]


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with its metadata in sorted order.

    The library writes metadata in the order of a hash map, which differs from call to call.
    """
    from safetensors.torch import save

    # Copies: the library refuses tensors that share memory.
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    (length,) = struct.unpack_from("<Q", data)
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    header |= json.loads(data[8 : 8 + length])
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
