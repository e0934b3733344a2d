"""Attention injectors: patches that work inside of a denoiser's attention while it samples."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mezzotint import hookimpl

if TYPE_CHECKING:
    from mezzotint_attention.injection import Evaluation, Injection, Opened, inject
    from mezzotint_attention.sites import Sites
    from mezzotint_attention.words import columns, prompt_words, token_ids

__all__ = [
    "Evaluation", "Injection", "Opened", "Sites", "columns", "inject", "prompt_words", "register_nodes",
    "register_ports", "token_ids",
]  # fmt: skip

_HOME = {
    "Evaluation": "injection", "Injection": "injection", "Opened": "injection", "inject": "injection",
    "Sites": "sites", "columns": "words", "prompt_words": "words", "token_ids": "words",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    """The nodes of this plugin."""
    from mezzotint_attention.image_prompt import picture_prompt
    from mezzotint_attention.layout_guidance import guide_layout
    from mezzotint_attention.maps import maps
    from mezzotint_attention.prompt_to_prompt_node import prompt_to_prompt
    from mezzotint_attention.regions import regional_prompts
    from mezzotint_attention.shared import share
    from mezzotint_attention.sites import sites

    for function in (sites, maps, prompt_to_prompt, regional_prompts, share, guide_layout, picture_prompt):
        register(function)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    """The port of this plugin, and the patches that a recipe can carry."""
    from mezzotint_attention.image_prompt import PicturePrompt
    from mezzotint_attention.layout_guidance import LayoutGuidance
    from mezzotint_attention.local_blend import LocalBlend
    from mezzotint_attention.prompt_to_prompt import CrossEdit, SelfEdit
    from mezzotint_attention.regions import RegionalPrompts
    from mezzotint_attention.shared import SharedAttention
    from mezzotint_attention.sites import Sites
    from mezzotint_attention.store import AttentionStore

    for kind in (
        Sites,
        CrossEdit,
        SelfEdit,
        LocalBlend,
        AttentionStore,
        RegionalPrompts,
        SharedAttention,
        LayoutGuidance,
        PicturePrompt,
    ):
        register(kind)
