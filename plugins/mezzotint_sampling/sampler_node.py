"""The node that samples."""

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
    node,
)

if TYPE_CHECKING:
    from mezzotint_sampling.samplers import State

__all__ = ["sample"]

_SAMPLERS = ("dpmpp_2m", "euler", "euler_ancestral", "heun", "ddim", "ddpm")


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
    clip: Annotated[float, Field(gt=0)] | None = None,
) -> Latents:
    """Sample latents: from noise, or from given latents noised to the first level.

    denoiser: the model, guided or not.
    conditioning: what the picture is to show; one for all samples, or one for each.
    latents: zero throughout for a picture from nothing; others are kept in proportion to the first
        level's alpha. Where their mask is 0 they come back exactly as they were (inpainting).
    sigmas: the levels to visit, noisiest first.
    noise: where the start and the sampler's own noise come from.
    sampler: ddpm, ddim, euler, euler_ancestral, heun, dpmpp_2m, or one that a plugin registers.
    eta: how random ddim (0 unless given) and euler_ancestral (1) are.
    clip: bounds the clean picture to -clip..clip at every step, for models of pixels.

    The result is float32. The run is saved after every step and goes on from there, bit for bit.
    Raises: UserError: latents, conditioning or levels that do not fit the denoiser.
    """
    from mezzotint_sampling.checks import check_inputs
    from mezzotint_sampling.conditioning import for_batch
    from mezzotint_sampling.noise import numbers_of, starting_point
    from mezzotint_sampling.run import Region, levels_of, run, sampler_named

    chosen = sampler_named(sampler, getattr(ctx, "samplers", None))
    levels = levels_of(sigmas)
    check_inputs(denoiser, conditioning, latents)
    data = latents.data.to(device=ctx.device, dtype=_float32())
    numbers = numbers_of(noise, tuple(data.shape), ctx.device)
    state = _resumed(ctx)
    result = run(
        chosen,
        ctx.realise(denoiser),
        for_batch(conditioning, data.shape[0]),
        data if state is not None else starting_point(data, levels[0], numbers),
        sigmas,
        numbers,
        state=state,
        on_state=lambda now, total: _report(ctx, now, total, latents.space),
        region=None if latents.mask is None else Region(_mask(latents.mask, data), data),
        clip=clip,
        hooks=getattr(ctx, "hooks", None),
        **({} if eta is None else {"eta": eta}),
    )
    return latents.replace(data=result)


def _float32() -> Any:
    import torch

    return torch.float32


def _mask(mask: Any, data: Any) -> Any:
    """The mask on the device, with a frame axis if the latents have one and it has not."""
    mask = mask.to(data)
    return mask.unsqueeze(2) if data.dim() == 5 and mask.dim() == 4 else mask


def _resumed(ctx: Context) -> State | None:
    """The state that an interrupted run saved last."""
    from mezzotint_sampling.samplers import State

    saved = ctx.resume()
    if saved is None:
        return None
    history = tuple(tensor.to(ctx.device) for tensor in saved["history"])
    return State(saved["step"], saved["x"].to(ctx.device), history)


def _report(ctx: Context, state: State, total: int, space: str) -> None:
    """Save first, so that a cancelled run has lost nothing."""
    from mezzotint_sampling.preview import preview

    history = [tensor.cpu() for tensor in state.history]
    ctx.save_state({"step": state.step, "x": state.x.cpu(), "history": history})
    shown = state.x if state.x0 is None else state.x0
    ctx.progress(state.step, total, lambda: preview(shown, space))
