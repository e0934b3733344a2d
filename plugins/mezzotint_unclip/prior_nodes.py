"""The nodes of the diffusion prior: a denoiser of image embeddings, and the better of what it sampled."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzotint import Conditioning, Denoiser, Latents, Source, UserError, Weights, node

__all__ = ["DIFFUSION", "SPACE", "keep_nearest", "prior"]

SPACE = "clip image embedding"
"""The space of the prior's latents: image embeddings times the root of their width."""

DIFFUSION = "unclip.diffusion_prior"
"""The network's name in the registry."""


@node("unclip.prior")
def prior(
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    part: Annotated[str, Field(max_length=200)] = "",
) -> Denoiser:
    """The diffusion prior: a denoiser whose latents [B, D, 1, 1] are image embeddings, made after a text.

    Sample it like any other, from empty latents of 1 by 1, with a text by CLIP's encoder; `unclip.keep_nearest`
    makes a conditioning of what comes out.

    weights: what training gave; in its place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several are priors.
    Raises: UserError: both or neither are given; another network; a damaged or foreign file.
    """
    from mezzotint_models import recipe_for
    from mezzotint_unclip.schedule import SCHEDULE

    meta, recipe = recipe_for("prior", weights, source, part, node="unclip.prior")
    if meta.get("class") != DIFFUSION:
        raise UserError(
            f"unclip.prior: wanted a diffusion prior, got a {meta.get('class')}; unclip.sample_codes takes an "
            "autoregressive one"
        )
    width = meta["config"].get("embedding")
    if not isinstance(width, int) or not 1 <= width <= 65536:
        raise UserError(f"unclip.prior: the configuration's embedding is damaged: {width!r}")
    return Denoiser(
        **recipe, loader="unclip.prior", schedule=SCHEDULE, channels=width, sample_size=1, space=SPACE, downscale=1
    )


@node("unclip.keep_nearest")
def keep_nearest(
    candidates: Annotated[list[Latents], Field(min_length=1, max_length=1024)], text: Conditioning
) -> Conditioning:
    """Of the image embeddings that the diffusion prior sampled, keep for each text the one nearest to it.

    candidates: of `sampling.sample` with `unclip.prior`, as many runs with noise of their own: each [B, D, 1, 1].
        unCLIP draws two. One alone is taken as it is.
    text: as the prior was told it, one or B.

    returns: pooled [B, D], of length 1.
    Raises: UserError: latents that no prior made, of different numbers of samples, an image's embedding in place
        of the text, another number of texts.
    Source: Ramesh et al. 2022 (unCLIP), section 2.2.
    """
    import torch
    from torch.nn.functional import normalize

    from mezzotint_unclip.checks import text_embedding

    for latents in candidates:
        _check_candidate(latents, candidates[0])
    drawn = normalize(torch.stack([c.data.flatten(1).float() for c in candidates]), dim=-1)  # [candidates, B, D]
    count = drawn.shape[1]
    _, wanted = text_embedding(text, "unclip.keep_nearest: text", drawn.shape[2])
    if len(wanted) not in (1, count):
        raise UserError(f"unclip.keep_nearest: wanted one text or {count}, one a sample; got {len(wanted)}")
    nearest = (drawn * wanted.to(drawn)).sum(-1).argmax(0)
    return Conditioning(pooled=drawn[nearest, torch.arange(count, device=drawn.device)])


def _check_candidate(latents: Latents, first: Latents) -> None:
    shape = tuple(latents.data.shape)
    if latents.space != SPACE or shape[2:] != (1, 1):
        raise UserError(
            f"unclip.keep_nearest: wanted embeddings [B, D, 1, 1] that a prior sampled, got latents {list(shape)} "
            f"of space {latents.space!r}; sample with unclip.prior and empty latents 1 by 1"
        )
    if shape != tuple(first.data.shape):
        raise UserError(
            f"unclip.keep_nearest: candidates are runs of one batch, got {list(first.data.shape)}, {list(shape)}"
        )
