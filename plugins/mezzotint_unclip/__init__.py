"""unCLIP, DALL-E 2's method: priors from a text to CLIP's embedding of a picture of it, and its decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mezzotint import hookimpl

__all__ = ["register_loaders", "register_nodes", "register_ports"]


@hookimpl
def register_nodes(register: Callable[[Callable[..., Any]], None]) -> None:
    from mezzotint_unclip.code_sampling import sample_codes
    from mezzotint_unclip.conditioner import condition_on_embedding
    from mezzotint_unclip.decoder_nodes import condition_decoder
    from mezzotint_unclip.interpolation import interpolate, text_difference
    from mezzotint_unclip.pairs import pairs
    from mezzotint_unclip.picture_conditioner import condition_on_picture
    from mezzotint_unclip.prior_nodes import keep_nearest, prior
    from mezzotint_unclip.prior_objectives import autoregressive_objective, diffusion_objective

    for function in (
        pairs, diffusion_objective, autoregressive_objective, condition_on_embedding, condition_on_picture,
        prior, keep_nearest, sample_codes, condition_decoder, interpolate, text_difference,
    ):  # fmt: skip
        register(function)


@hookimpl
def register_loaders(register: Callable[[str, Callable[..., Any]], None]) -> None:
    register("unclip.prior", _load_prior)
    register("unclip.pairs", _open_pairs)


def _load_prior(recipe: Any, ctx: Any) -> Any:
    # Imported when it is called: a listing of nodes loads no torch.
    from mezzotint_unclip.diffusion_prior import load_prior

    return load_prior(recipe, ctx)


def _open_pairs(dataset: Any, ctx: Any) -> Any:
    from mezzotint_unclip.pairs import open_pairs

    return open_pairs(dataset, ctx)


@hookimpl
def register_ports(register: Callable[..., None]) -> None:
    from mezzotint_unclip.conditioner import EmbeddingConditioner
    from mezzotint_unclip.picture_conditioner import PictureConditioner
    from mezzotint_unclip.prior_objectives import AutoregressivePriorObjective, DiffusionPriorObjective

    for kind in (DiffusionPriorObjective, AutoregressivePriorObjective, EmbeddingConditioner, PictureConditioner):
        register(kind)
