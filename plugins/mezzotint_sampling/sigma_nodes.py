"""The nodes that make noise levels from numbers, and take runs apart and put them together."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from mezzotint import Denoiser, Sigmas, UserError, node

__all__ = ["Parts", "join_sigmas", "sigmas_from_list", "skip_steps", "split_sigmas"]


class Parts(NamedTuple):
    """high: from the noisiest level to where the run is split. low: from there to the end."""

    high: Sigmas
    low: Sigmas


@node("sampling.sigmas_from_list", version=1)
def sigmas_from_list(
    denoiser: Denoiser,
    *,
    values: list[float],
    unit: Literal["sigma", "time"] = "sigma",
    end: bool = True,
) -> Sigmas:
    """Noise levels given one by one.

    denoiser: whose levels they are: it says what time belongs to each.
    values: noisiest first, each below the one before.
    unit: sigma is k-diffusion's and ComfyUI's, sigma / alpha (of a flow model, sigma itself); time is
        the number that the denoiser is told, in training steps, as diffusers' `timesteps`.
    end: whether the run goes on to the clean end from the last value.

    Raises: UserError: a value that is negative, no number, out of the model's range, or that rises.
    """
    from mezzotint_sampling.levels import levels_from

    return levels_from(denoiser.schedule, values, unit, end=end)


@node("sampling.split_sigmas", version=1)
def split_sigmas(
    sigmas: Sigmas,
    *,
    step: Annotated[int, Field(ge=1)] | None = None,
    sigma: Annotated[float, Field(gt=0)] | None = None,
    part: Annotated[float, Field(gt=0, lt=1)] | None = None,
) -> Parts:
    """Take a run apart, for two models, two sizes or two samplers one after the other.

    sigmas: of the whole run.
    step: how many steps the first part has; or
    sigma: split at the first level at or below this one, k-diffusion's sigma (sigma / alpha); or
    part: of the steps that the first part has, rounded. One of the three is given.

    Both parts have the level in common at which they meet.
    Raises: UserError: not one of the three, or a part that would be without a step.
    """
    from mezzotint_sampling.levels import split, step_at

    if sum(value is not None for value in (step, sigma, part)) != 1:
        raise UserError("sampling.split_sigmas: wanted one of step, sigma and part")
    if sigma is not None:
        step = step_at(sigmas, sigma)
    elif part is not None:
        step = round(part * (len(sigmas.sigmas) - 1))
    assert step is not None
    return Parts(*split(sigmas, step))


@node("sampling.join_sigmas", version=1)
def join_sigmas(first: Sigmas, second: Sigmas) -> Sigmas:
    """Put two runs together: the first one's levels, then the second one's.

    first: the noisier ones.
    second: at or below the end of the first; a level in which both meet is kept once.

    Raises: UserError: the second run begins above the end of the first.
    """
    from mezzotint_sampling.levels import joined

    return joined(first, second)


@node("sampling.skip_steps", version=1)
def skip_steps(sigmas: Sigmas, *, share: Annotated[float, Field(ge=0, le=1)] = 0.25) -> Sigmas:
    """Leave out the noisiest steps of a run, so that more of a picture is kept.

    sigmas: of the whole run; the steps that are left are those that it would have made.
    share: of its steps, rounded; 0 leaves out none, and 1 all: what is sampled then comes back as it was.

    Source: Avrahami et al. 2022, "Blended Diffusion", whose released code skips a quarter.
    Raises: UserError: a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise UserError(f"sampling.skip_steps: the share is 0..1, got {share:g}")
    first = round(share * (len(sigmas.sigmas) - 1))
    return Sigmas(sigmas.alphas[first:], sigmas.sigmas[first:], sigmas.times[first:])
