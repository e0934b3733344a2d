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
def keep_nearest(candidates: Latents, text: Conditioning) -> Conditioning:
    """Of the image embeddings that the diffusion prior sampled, keep the one nearest to the text's.

    candidates: of `sampling.sample` with `unclip.prior`: [N, D, 1, 1]. unCLIP draws two.
    text: one text, as the prior was told it.

    returns: pooled [1, D], of length 1.
    Raises: UserError: latents that no prior made, an image's embedding in place of the text, several texts.
    Source: Ramesh et al. 2022 (unCLIP), section 2.2.
    """
    from torch.nn.functional import normalize

    from mezzotint_unclip.checks import text_embedding

    data = candidates.data
    if candidates.space != SPACE or data.ndim != 4 or data.shape[2:] != (1, 1):
        raise UserError(
            f"unclip.keep_nearest: wanted embeddings [N, D, 1, 1] that a prior sampled, got latents "
            f"{list(data.shape)} of space {candidates.space!r}; sample with unclip.prior and empty latents 1 by 1"
        )
    _, wanted = text_embedding(text, "unclip.keep_nearest: text", data.shape[1])
    if len(wanted) != 1:
        raise UserError(f"unclip.keep_nearest: wanted one text, got {len(wanted)}; flow.map takes them one by one")
    found = normalize(data.flatten(1).float(), dim=-1)
    best = int((found @ wanted[0].to(found)).argmax())
    return Conditioning(pooled=found[best : best + 1].clone())
