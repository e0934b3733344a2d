"""Sampling from within a node of another plugin, which samples several times: the checks, one run from noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Conditioning, Context, Denoiser, Image, Latents, Noise, Predictor, Sigmas
    from mezzotint_sampling.protocol import State

__all__ = ["check_sampling", "sample_from_noise"]


def check_sampling(
    ctx: Context, sampler: str, denoiser: Denoiser, conditioning: Conditioning, latents: Latents, sigmas: Sigmas,
    options: Mapping[str, Any],
) -> None:  # fmt: skip
    """Raises: UserError: what sampling.sample refuses, before a model is loaded."""
    from mezzotint_sampling.checks import check_inputs
    from mezzotint_sampling.run import prepared, sampler_named

    chosen = sampler_named(sampler, getattr(ctx, "samplers", None))
    prepared(sampler, chosen, sigmas, options, denoiser.schedule.prediction)
    check_inputs(denoiser, conditioning, latents)


def sample_from_noise(
    ctx: Context, sampler: str, predictor: Predictor, conditioning: Conditioning, shape: tuple[int, ...],
    sigmas: Sigmas, noise: Noise, *,
    options: Mapping[str, Any] | None = None, clip: float | None = None,
    space: str = "", report: Callable[[int, int, Callable[[], Image]], None] | None = None,
) -> Tensor:  # fmt: skip
    """One run of a realised denoiser, as sampling.sample makes it of empty latents: float32 of `shape`.

    space: of the latents, for previews. report: called after each step with the evaluations done, all of them, and
    what makes a preview. The run is not saved: what comes of it is the caller's to save.
    """
    import torch

    from mezzotint_sampling.combined import combining
    from mezzotint_sampling.conditioning import numbered
    from mezzotint_sampling.noise import numbers_of, starting_point
    from mezzotint_sampling.preview import preview
    from mezzotint_sampling.run import levels_of, run, sampler_named

    numbers = numbers_of(noise, shape, ctx.device)
    empty = torch.zeros(shape, dtype=torch.float32, device=ctx.device)

    def on_state(now: State, total: int) -> None:
        if report is not None:
            report(now.step, total, lambda: preview(now.x if now.x0 is None else now.x0, space))

    return run(
        sampler_named(sampler, getattr(ctx, "samplers", None)), combining(predictor),
        numbered(conditioning, shape[0]), starting_point(empty, levels_of(sigmas)[0], numbers), sigmas, numbers,
        on_state=on_state, clip=clip, hooks=getattr(ctx, "hooks", None), name=sampler, options=options,
    )  # fmt: skip
