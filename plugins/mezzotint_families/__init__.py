"""The families before diffusion: VAE, RealNVP, VQ-VAE, GAN and WGAN, trained by `training.train`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mezzotint import hookimpl

__all__ = ["register_nodes", "register_ports"]


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_families import cost, nodes, vanishing

    for function in (
        nodes.vae, nodes.realnvp, nodes.vqvae, nodes.gan, nodes.wgan,
        nodes.sample, nodes.interpolate, nodes.reconstruct, cost.cost, cost.time, vanishing.vanishing,
    ):  # fmt: skip
        register(function)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    from mezzotint_families import objectives

    for kind in (
        objectives.VAEObjective, objectives.RealNVPObjective, objectives.VQVAEObjective,
        objectives.AdversarialObjective,
    ):  # fmt: skip
        register(kind)
