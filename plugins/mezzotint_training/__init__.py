"""Training: one loop for every objective, and the nodes that train the bundled model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mezzotint import hookimpl

__all__ = ["register_nodes", "register_ports"]


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_training.nodes import autoencoder, checkpoint, denoiser, text_encoder

    for function in (text_encoder, autoencoder, denoiser, checkpoint):
        register(function)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    from mezzotint_training.checkpoint import Checkpoint, write_checkpoint

    register(Checkpoint, suffix="safetensors", media_type="application/octet-stream", writer=write_checkpoint)
