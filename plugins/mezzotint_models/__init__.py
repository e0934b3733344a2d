"""Checkpoints in the Stable Diffusion layouts: text encoders, denoisers and autoencoders.

The network classes and the tokenizer are diffusers' and transformers'; their weights are read here, from
safetensors files only, and nothing is ever fetched from a hub.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mezzotint import hookimpl

__all__ = ["register_loaders", "register_nodes"]


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_models.checkpoint import checkpoint, pack
    from mezzotint_models.latents import decode, encode, set_mask
    from mezzotint_models.prompt import encode_text

    for function in (checkpoint, encode_text, encode, decode, set_mask, pack):
        register(function)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    from mezzotint_models.autoencoder import load_autoencoder
    from mezzotint_models.clip_text import load_clip_text
    from mezzotint_models.unet import load_unet

    register("models.unet", load_unet)
    register("models.clip_text", load_clip_text)
    register("models.autoencoder_kl", load_autoencoder)
