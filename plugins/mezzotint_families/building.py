"""Networks of the families from their weights, and weights from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mezzotint import UserError
from mezzotint_families.gan import Generator
from mezzotint_families.realnvp import RealNVP
from mezzotint_families.vae import VAE
from mezzotint_families.vqvae import VQVAE
from mezzotint_training import pack

if TYPE_CHECKING:
    from mezzotint import Weights

__all__ = ["CLASSES", "build_family", "pack_family"]

CLASSES = {"families.vae": VAE, "families.realnvp": RealNVP, "families.vqvae": VQVAE, "families.gan": Generator}


def pack_family(module: Any) -> Weights:
    """Its weights, with the settings that make it again."""
    (name,) = (name for name, kind in CLASSES.items() if type(module) is kind)
    return pack(module, name, module.config)


def build_family(weights: Weights) -> Any:
    """The network, for evaluation. Raises: UserError: weights of something else."""
    if weights.target not in CLASSES:
        wanted = ", ".join(CLASSES)
        raise UserError(f"wanted weights of one of {wanted}; got those of {weights.target or 'something unnamed'}")
    module = CLASSES[weights.target](**dict(weights.meta["config"]))
    module.load_state_dict(dict(weights.tensors))
    return module.eval().requires_grad_(False)
