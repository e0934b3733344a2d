"""Networks of the families from their weights, and weights from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mezzotint import UserError
from mezzotint_models import build_network, pack_network

if TYPE_CHECKING:
    from mezzotint import Weights

__all__ = ["CLASSES", "build_family", "pack_family"]

CLASSES = ("families.vae", "families.realnvp", "families.vqvae", "families.gan")


def pack_family(module: Any) -> Weights:
    """Its weights, with the settings that make it again."""
    return pack_network(module)


def build_family(weights: Weights) -> Any:
    """The network, for evaluation. Raises: UserError: weights of something else, or damaged ones."""
    if weights.target not in CLASSES:
        wanted = ", ".join(CLASSES)
        raise UserError(f"wanted weights of one of {wanted}; got those of {weights.target or 'something unnamed'}")
    return build_network(weights)
