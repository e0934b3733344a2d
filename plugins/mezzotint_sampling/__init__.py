"""Sampling: noise, noise levels, samplers and guidance, as Mezzotint nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mezzotint import hookimpl


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    """The nodes of this plugin."""
    from mezzotint_sampling import nodes, sampler_node, sigma_nodes

    for function in (
        nodes.sigmas, sigma_nodes.sigmas_from_list, sigma_nodes.split_sigmas, sigma_nodes.join_sigmas,
        sigma_nodes.reverse_sigmas, nodes.noise, nodes.empty_latents, nodes.guide, sampler_node.sample,
    ):  # fmt: skip
        register(function)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    """The patches that a recipe can carry."""
    from mezzotint_sampling.guidance import ClassifierFree

    register(ClassifierFree)


@hookimpl
def register_samplers(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """The bundled samplers."""
    from mezzotint_sampling.samplers import SAMPLERS

    for name, sampler in SAMPLERS.items():
        register(name, sampler)
