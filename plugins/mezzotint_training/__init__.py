"""Training: one loop for every objective, and the nodes that train the bundled model.

A plugin that has something to train derives its classes from `Objective` and `Task` here. No name below loads
torch before it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mezzotint import hookimpl

if TYPE_CHECKING:
    from mezzotint_training.checkpoint import build, join, pack, split
    from mezzotint_training.epochs import rows
    from mezzotint_training.objective import Objective, Part, Task

__all__ = [
    "Objective",
    "Part",
    "Task",
    "build",
    "join",
    "pack",
    "register_loaders",
    "register_nodes",
    "register_ports",
    "rows",
    "split",
]

_HOME = {
    "Objective": "objective",
    "Part": "objective",
    "Task": "objective",
    "build": "checkpoint",
    "join": "checkpoint",
    "pack": "checkpoint",
    "rows": "epochs",
    "split": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_training.nodes import autoencoder, checkpoint, denoiser, text_encoder
    from mezzotint_training.picture_folder import pictures
    from mezzotint_training.train_node import train

    for function in (train, pictures, text_encoder, autoencoder, denoiser, checkpoint):
        register(function)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    from mezzotint_training.picture_folder import READER, open_pictures

    register(READER, open_pictures)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    from mezzotint_training.checkpoint import Checkpoint, write_checkpoint
    from mezzotint_training.objective import Objective

    register(Checkpoint, suffix="safetensors", media_type="application/octet-stream", writer=write_checkpoint)
    register(Objective)
