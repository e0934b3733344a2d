"""How well a denoiser knows pictures: its error where it has to tell them from noise."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mezzotint import Conditioning, Context, Denoiser, Latents, NoiseLevel, Report, Sigmas, UserError, node

__all__ = ["denoising_error"]

_WHERE = "metrics.denoising_error"


@node("metrics.denoising_error", device=True)
def denoising_error(
    ctx: Context,
    denoiser: Denoiser,
    latents: Latents,
    conditioning: Conditioning,
    sigmas: Sigmas,
    *,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Report:
    """How far off a denoiser is where it is shown pictures with noise, on fixed levels and noise.

    The mean over levels of |x0' - x0|^2 / sigma^2, which is the squared error in v where alpha^2 + sigma^2 = 1
    (Salimans and Ho 2022, appendix D), and in the velocity of a flow: each level counts about the same. What a
    model has forgotten has a larger error than before.

    denoiser: with all that is on it; guidance would be measured too.
    latents: [B, C, ...] of the pictures, by models.encode.
    conditioning: what they show, one text for each, or one for all.
    sigmas: the levels; one without noise is left out.
    seed: of the noise; picture i has that of seed + i, another one at each level.

    returns: "error", the mean; "rows", for each picture its "error"; "levels", for each its "sigma" and "error".
    Raises: UserError: no pictures, latents of another space, another number of texts, no level with noise.
    """
    import torch

    from mezzotint_sampling import clean_row

    clean = latents.data.to(ctx.device).float()
    _check(denoiser, latents, conditioning)
    each = zip(sigmas.alphas, sigmas.sigmas, sigmas.times, strict=True)
    levels = [NoiseLevel(*values) for values in each if values[1] > 0]
    if not levels:
        raise UserError(f"{_WHERE}: no level has noise; sampling.sigmas makes levels")
    model, noise = ctx.realise(denoiser), ctx.noise(seed)
    found = []
    with torch.no_grad():
        for number, level in enumerate(levels):
            x = level.alpha * clean + level.sigma * noise.normal(clean.shape, step=number).to(clean)
            answer = model.predict(x, level, conditioning)
            own, said = clean_row(answer.kind, level)
            off = own * x + said * answer.combined().float() - clean
            found.append(off.double().square().flatten(1).mean(1) / level.sigma**2)
            ctx.progress(number + 1, len(levels))
    errors = torch.stack(found).cpu()
    told = zip(levels, errors.mean(1).tolist(), strict=True)
    return Report(
        {
            "error": errors.mean().item(),
            "rows": [{"error": value} for value in errors.mean(0).tolist()],
            "levels": [{"sigma": level.sigma, "error": value} for level, value in told],
        }
    )


def _check(denoiser: Denoiser, latents: Latents, conditioning: Conditioning) -> None:
    count = len(latents.data)
    if not count:
        raise UserError(f"{_WHERE}: wanted latents of at least one picture, got none")
    if latents.space and denoiser.space and latents.space != denoiser.space:
        raise UserError(
            f"{_WHERE}: the latents are of space {latents.space!r}, the denoiser's is {denoiser.space!r}"
        )
    texts = 1 if conditioning.context is None else len(conditioning.context)
    if texts not in (1, count):
        raise UserError(f"{_WHERE}: {texts} texts for {count} pictures; give one for each, or one for all")
