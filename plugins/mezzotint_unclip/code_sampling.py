"""The node of the autoregressive prior: an image embedding, written code by code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Context, Recipe, Source, UserError, Weights, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["sample_codes"]


@node("unclip.sample_codes", device=True)
def sample_codes(
    ctx: Context,
    text: Conditioning,
    negative: Conditioning | None = None,
    weights: Weights | None = None,
    *,
    source: Source | None = None,
    part: Annotated[str, Field(max_length=200)] = "",
    guidance: Annotated[float, Field(ge=0, le=1000)] = 1.0,
    candidates: Annotated[int, Field(ge=1, le=1024)] = 2,
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0,
    batch: Annotated[int, Field(ge=1, le=4096)] | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Conditioning:
    """Sample an image embedding with the autoregressive prior: a row of codes, one after the other.

    Each is told a similarity to the text from the upper half of those in the training data.

    text: one text or several, of the CLIP that the prior was trained on.
    negative: what guidance moves away from: the encoding of no words.
    weights: what training gave; in its place, `source`.
    source: a .safetensors file, or its bundled name.
    part: which network of those, where several are priors.
    guidance: 1 is none, and needs no negative.
    candidates: drawn for each text, of which the nearest to it is kept.
    temperature: of the codes' distributions; 0 takes the likeliest each time.
    batch: how many embeddings of one text; null makes one for each text.
    seed: sample i has seed + i.

    returns: pooled [B, D], of length 1.
    Raises: UserError: weights of another network, an image's embedding in place of a text, a text of another
        encoder, several texts and another batch, guidance without a negative.
    Source: Ramesh et al. 2022 (unCLIP), section 2.2.
    """
    import torch

    from mezzotint_unclip.checks import text_embedding

    if guidance != 1 and negative is None:
        raise UserError(
            "unclip.sample_codes: guidance compares with a negative; give the encoding of an empty text"
        )
    model = _network(ctx, weights, source, part)
    sizes = (model.config["embedding"], model.config["text"], model.config["length"])
    told = _on(ctx, text_embedding(text, "unclip.sample_codes: text", *sizes))
    count = batch or len(told[1])
    if len(told[1]) not in (1, count):
        raise UserError(f"unclip.sample_codes: batch is {count}, wanted one text or as many, got {len(told[1])}")
    told = (told[0].expand(count, -1, -1), told[1].expand(count, -1))
    null = negative and _on(ctx, text_embedding(negative, "unclip.sample_codes: negative", *sizes))
    # All candidates in one batch: row i of candidate c is row c * count + i.
    rows = tuple(value.repeat(candidates, *[1] * (value.ndim - 1)) for value in told)
    streams = [ctx.noise(seed, f"unclip.sample_codes/{candidate}") for candidate in range(candidates)]

    def uniform(place: int) -> Tensor:
        drawn = torch.cat([stream.normal((count, 1), step=place) for stream in streams])
        return torch.special.ndtr(drawn[:, 0].double())

    made = model.sample(*rows, uniform, null=null, guidance=guidance, temperature=temperature)
    drawn = made.unflatten(0, (candidates, count))
    nearest = (drawn * told[1]).sum(-1).argmax(0)
    return Conditioning(pooled=drawn[nearest, torch.arange(count, device=drawn.device)])


def _network(ctx: Context, weights: Weights | None, source: Source | None, part: str) -> Any:
    from mezzotint_models import network_of, recipe_for
    from mezzotint_unclip.autoregressive_prior import AutoregressivePrior

    _, recipe = recipe_for("prior", weights, source, part, node="unclip.sample_codes")
    # float32 whatever the run's type: a bucket's bounds are numbers, not features.
    recipe["config"]["dtype"] = "float32"
    network = network_of(Recipe(**recipe, loader=""), ctx)
    if not isinstance(network, AutoregressivePrior):
        raise UserError(
            f"unclip.sample_codes: wanted an autoregressive prior, got a {type(network).__name__}; "
            "unclip.prior takes a diffusion prior"
        )
    return network


def _on(ctx: Context, told: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return told[0].to(ctx.device), told[1].to(ctx.device)
