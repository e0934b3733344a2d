"""The nodes that run a sampler: down to a picture, and up from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import (
    Conditioning,
    Context,
    Denoiser,
    Latents,
    Noise,
    Registered,
    Sigmas,
    UserError,
    node,
)

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint_sampling.protocol import State

__all__ = ["invert", "sample"]

_SAMPLERS = (
    "dpmpp_2m", "euler", "euler_ancestral", "heun", "ddim", "ddpm", "lcm", "dpm_2", "dpm_2_ancestral", "lms",
    "dpmpp_2s", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m", "dpmpp_3m_sde", "unipc", "deis",
    "ipndm", "restart",
)  # fmt: skip


@node("sampling.sample", version=1, device=True)
def sample(
    ctx: Context,
    denoiser: Denoiser,
    conditioning: Conditioning,
    latents: Latents,
    sigmas: Sigmas,
    noise: Noise,
    *,
    sampler: Annotated[str, Field(examples=list(_SAMPLERS)), Registered("samplers")] = "dpmpp_2m",
    eta: Annotated[float, Field(ge=0)] | None = None,
    options: dict[str, Any] | None = None,
    add_noise: bool = True,
    clip: Annotated[float, Field(gt=0)] | None = None,
) -> Latents:
    """Sample latents: from noise, or from given latents noised to the first level.

    denoiser: the model, guided or not.
    conditioning: what the picture is to show; one for all samples, or one for each.
    latents: zero throughout for a picture from nothing; others are kept in proportion to the first
        level's alpha. Where their mask is 0 they come back exactly as they were (inpainting).
    sigmas: the levels to visit, noisiest first.
    noise: where the start and the sampler's own noise come from.
    sampler: one of the bundled ones (docs/sampling.md compares them), or one that a plugin registers.
    eta: how random the sampler is, for those that have a say: ddim (0 unless given), and the ancestral
        and sde ones (1).
    options: the sampler's other options by name, such as {"order": 3}; a wrong name is answered with
        those that it has.
    add_noise: false takes the latents as they are, at the first level's noise already: from
        `sampling.invert`, or from an earlier run that ended there. Nothing is kept of a mask then.
    clip: bounds the clean picture to -clip..clip at every step, for models of pixels.

    The result is float32. The run is saved after every step and goes on from there, bit for bit.
    Raises: UserError: latents, conditioning, levels or options that do not fit denoiser and sampler,
        or a denoiser that gives NaN.
    """
    from mezzotint_sampling.noise import starting_point
    from mezzotint_sampling.run import Region, levels_of, sampler_named

    chosen = sampler_named(sampler, getattr(ctx, "samplers", None))
    if len(sigmas.sigmas) == 1 and sigmas.sigmas[0] == 0:
        return latents.replace(data=latents.data.float())  # sampling.skip_steps has left no step
    if latents.mask is not None and not add_noise:
        raise UserError("latents with a mask need add_noise: the known region is noised at every level")

    def start(data: Tensor, numbers: Any) -> Tensor:
        return starting_point(data, levels_of(sigmas)[0], numbers) if add_noise else data

    def region(data: Tensor) -> Region | None:
        return None if latents.mask is None else Region(_mask(latents.mask, data), data)

    given = dict(options or {})
    if eta is not None and given.setdefault("eta", eta) != eta:
        raise UserError(f"eta is {eta:g}, and {given['eta']!r} in options; leave one of them out")
    return _run(
        ctx,
        sampler,
        chosen,
        denoiser,
        conditioning,
        latents,
        sigmas,
        noise,
        given,
        start,
        region=region,
        clip=clip,
    )


@node("sampling.invert", version=1, device=True)
def invert(
    ctx: Context,
    denoiser: Denoiser,
    conditioning: Conditioning,
    latents: Latents,
    sigmas: Sigmas,
    *,
    iterations: Annotated[int, Field(ge=1, le=100)] = 5,
) -> Latents:
    """Find the noisy latents from which DDIM would make the given ones (DDIM inversion).

    Sample them with the same sigmas, the sampler ddim and add_noise false: the picture comes back,
    or, with another conditioning, an edited one.

    denoiser: the model; without guidance the way back is nearest.
    conditioning: what the picture shows.
    latents: of the picture, clean.
    sigmas: of the sampling run, noisiest first; the inversion goes through them from the last to the
        first, which must not be pure noise.
    iterations: evaluations for each step. 1 is the usual inversion; more solve each step of DDIM for
        its start by fixed-point iteration, and the picture comes back closer.

    The result is float32, at the first level. The run is saved after every evaluation and goes on
    from there, bit for bit.
    Raises: UserError: latents, conditioning or levels that do not fit the denoiser.
    """
    from mezzotint_sampling.inversion import ddim_inversion
    from mezzotint_sampling.levels import check_levels, reversed_levels

    check_levels(sigmas)
    rising = reversed_levels(sigmas)
    return _run(
        ctx, "ddim_inversion", ddim_inversion, denoiser, conditioning, latents.replace(mask=None), rising,
        Noise(seed=0), {"iterations": iterations}, lambda data, numbers: data,
    )  # fmt: skip


def _run(
    ctx: Context,
    name: str,
    chosen: Any,
    denoiser: Denoiser,
    conditioning: Conditioning,
    latents: Latents,
    sigmas: Sigmas,
    noise: Noise,
    options: dict[str, Any],
    start: Any,
    *,
    region: Any = None,
    clip: float | None = None,
) -> Latents:
    """Check all that can be checked without a model, and run from the start or from where a run stopped."""
    import torch

    from mezzotint_sampling.checks import check_inputs
    from mezzotint_sampling.combined import combining
    from mezzotint_sampling.conditioning import numbered
    from mezzotint_sampling.noise import numbers_of
    from mezzotint_sampling.run import prepared, run

    prepared(name, chosen, sigmas, options, denoiser.schedule.prediction)
    check_inputs(denoiser, conditioning, latents)
    data = latents.data.to(device=ctx.device, dtype=torch.float32)
    numbers = numbers_of(noise, tuple(data.shape), ctx.device)
    predictor = combining(ctx.realise(denoiser))
    state = _resumed(ctx, predictor)
    result = run(
        chosen,
        predictor,
        numbered(conditioning, data.shape[0]),
        data if state is not None else start(data, numbers),
        sigmas,
        numbers,
        state=state,
        on_state=lambda now, total: _report(ctx, predictor, now, total, latents.space),
        region=None if region is None else region(data),
        clip=clip,
        hooks=getattr(ctx, "hooks", None),
        name=name,
        options=options,
    )
    return latents.replace(data=result)


def _mask(mask: Any, data: Any) -> Any:
    """The mask on the device, with a frame axis if the latents have one and it has not."""
    mask = mask.to(data)
    return mask.unsqueeze(2) if data.dim() == 5 and mask.dim() == 4 else mask


def _resumed(ctx: Context, predictor: Any) -> State | None:
    """The state that an interrupted run saved last; what the predictor remembered then, it remembers again."""
    from mezzotint_sampling.protocol import State

    saved = ctx.resume()
    if saved is None:
        return None
    history = tuple(tensor.to(ctx.device) for tensor in saved["history"])
    if saved.get("remembered"):
        predictor.remember({name: tensor.to(ctx.device) for name, tensor in saved["remembered"].items()})
    return State(saved["step"], saved["x"].to(ctx.device), history)


def _report(ctx: Context, predictor: Any, state: State, total: int, space: str) -> None:
    """Save first, so that a cancelled run has lost nothing."""
    from mezzotint_sampling.preview import preview

    history = [tensor.cpu() for tensor in state.history]
    saved = {"step": state.step, "x": state.x.cpu(), "history": history}
    if hasattr(predictor, "remembered"):
        saved["remembered"] = {name: tensor.cpu() for name, tensor in predictor.remembered().items()}
    ctx.save_state(saved)
    shown = state.x if state.x0 is None else state.x0
    ctx.progress(state.step, total, lambda: preview(shown, space))
