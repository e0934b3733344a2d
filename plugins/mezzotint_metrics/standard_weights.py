"""Weights of the standard networks of published figures, from the user's own safetensors files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mezzotint import Source, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["filled", "tensors_of"]

Network = TypeVar("Network", bound="nn.Module")


def filled(make: Callable[[], Network], source: Source, device: str, holds: str, others: str) -> Network:
    """The network with exactly the file's numbers, in float32, in evaluation mode, frozen.

    make: builds it. holds, others: for the message: what the file should be, and which like it does not fit.
    Raises: UserError: no file, a pickle, tensors missing, unknown or of another shape.
    """
    import torch

    tensors = tensors_of(source)
    with torch.device("meta"):
        network = make()
    # A count of training batches, which only some files hold and nothing here reads.
    wanted = {name: t for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    got = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    wrong = [name for name in wanted if name not in got or got[name].shape != wanted[name].shape]
    wrong += [name for name in got if name not in wanted]
    if wrong:
        raise UserError(
            f"{source.uri} does not hold the weights of {holds}: {len(wrong)} tensors are missing, unknown or of "
            f"another shape, first {wrong[0]}. {others}"
        )
    placed = {name: tensor.to(device, torch.float32, copy=True) for name, tensor in got.items()}
    network.load_state_dict(placed, strict=False, assign=True)
    for name, buffer in network.named_buffers():
        if buffer.is_meta:
            owner, _, last = name.rpartition(".")
            network.get_submodule(owner).register_buffer(last, torch.zeros((), dtype=torch.int64))
    return network.eval().requires_grad_(False)


def tensors_of(source: Source) -> dict[str, Tensor]:
    """Raises: UserError: no safetensors file, above all a pickle."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(Path(source.path))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{source.uri} is no safetensors file ({error}); a pickle (.pt, .pth) can run any code when it is "
            "loaded, so convert it once, as docs/evaluation.md shows"
        ) from error
