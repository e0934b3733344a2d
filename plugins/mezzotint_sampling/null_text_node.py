"""The nodes of null-text inversion: a picture that was not made here becomes one that prompts can edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from mezzotint import Conditioning, Context, Denoiser, Latents, Noise, Report, Sigmas, node
from mezzotint_sampling.null_text import NullText, NullTexts

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Predictor

__all__ = ["guide_by_null_texts", "null_text"]


class Inverted(NamedTuple):
    """latents: the noise that the run starts from, at the first level.
    nulls: one null text for each step.
    report: "rebuilt", the mean squared error of the latents that the run leads back to, and "plain", that of
        guidance by the null that it began from; "steps", a row for each: its updates, the error before and after.
    """

    latents: Latents
    nulls: NullTexts
    report: Report


@node("sampling.null_text", device=True)
def null_text(
    ctx: Context,
    denoiser: Denoiser,
    conditioning: Conditioning,
    negative: Conditioning,
    latents: Latents,
    sigmas: Sigmas,
    *,
    scale: Annotated[float, Field(gt=1, le=1000)] = 7.5,
    iterations: Annotated[int, Field(ge=1, le=100)] = 5,
    updates: Annotated[int, Field(ge=0, le=10_000)] = 10,
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.01,
    tolerance: Annotated[float, Field(ge=0)] = 1e-5,
    copies: Annotated[int, Field(ge=1, le=64)] = 1,
) -> Inverted:
    """Invert a picture by DDIM, and optimise a null text for each step so that guided DDIM leads back to it.

    Sample the result's latents with the same sigmas, add_noise false, the sampler ddim, and the denoiser of
    sampling.guide_by_null_texts: the conditioning gives the picture back, another one edits it.

    denoiser: the model, without guidance.
    conditioning: what the picture shows, by a text.
    negative: the null to begin from; the encoding of an empty text is the usual one.
    latents: of one picture, clean.
    sigmas: of the sampling run, noisiest first, which must not begin in pure noise.
    scale: of guidance, for which the nulls are sought; at 1 there is no null.
    iterations: of the inversion, as in sampling.invert.
    updates: at most so many of Adam's for each step; 0 leaves the null as it is.
    learning_rate: of the first step, falling to its half towards the last.
    tolerance: a step stops early at this mean squared error, times 1, 3, 5, ... from the first step on.
    copies: of the noise in the result, neighbours in a batch, one for each prompt of attention.prompt_to_prompt.

    The run is saved after each step and goes on from there, bit for bit.
    Raises: UserError: several pictures, guidance on the denoiser, texts or levels that do not fit.
    Source: Mokady et al. 2023, "Null-text inversion", alg. 1.
    """
    import torch

    from mezzotint_sampling.combined import combining
    from mezzotint_sampling.guidance import ClassifierFreePredictor
    from mezzotint_sampling.null_text_checks import check_null_text
    from mezzotint_sampling.null_text_optimisation import Optimisation, optimised
    from mezzotint_sampling.run import levels_of

    check_null_text(denoiser, conditioning, negative, latents, sigmas)
    model = combining(ctx.realise(denoiser))
    saved = ctx.resume() or {}
    steps = len(sigmas.sigmas) - 1
    total = iterations * steps + steps * (updates + 1) + steps
    path = _path(ctx, model, conditioning, latents, sigmas, iterations, saved, total)
    state = _pursuit(saved, path[0], ctx.device)

    def on_update(step: int, update: int) -> None:
        ctx.progress(iterations * steps + step * (updates + 1) + update + 1, total)

    negative = negative.replace(context=negative.context.to(ctx.device))  # type: ignore[union-attr]
    how = Optimisation(scale, updates, learning_rate, tolerance)
    with torch.enable_grad():
        for now in optimised(model, conditioning, negative, path, levels_of(sigmas), how, state, on_update):
            state = now
            _save(ctx, path, now)
    context = torch.cat(state.nulls).float().cpu()
    nulls = NullTexts(
        context, negative.replace(context=None), tuple(sigmas.alphas[:-1]), tuple(sigmas.sigmas[:-1]), scale
    )
    plain = ClassifierFreePredictor(model, negative, scale)
    found = {
        "rebuilt": _error(state.x, path[-1]),
        "plain": _error(_sampled(ctx, plain, conditioning, path[0], sigmas, total), path[-1]),
        "steps": list(state.rows),
    }
    return Inverted(latents.replace(data=path[0].repeat(copies, 1, 1, 1), mask=None), nulls, Report(found))


@node("sampling.guide_by_null_texts")
def guide_by_null_texts(denoiser: Denoiser, nulls: NullTexts) -> Denoiser:
    """Classifier-free guidance with a null text of its own for each step, at the scale that these were made for.

    denoiser: the model whose picture was inverted; prompt-to-prompt goes on it before or after this.
    nulls: of sampling.null_text.

    Raises: UserError: when sampling, levels other than those of the inversion.
    Source: Mokady et al. 2023, section 3.3.
    """
    return denoiser.patched(NullText(nulls))


def _path(
    ctx: Context,
    model: Predictor,
    conditioning: Conditioning,
    latents: Latents,
    sigmas: Sigmas,
    iterations: int,
    saved: Any,
    total: int,
) -> list[Tensor]:
    """The latents of an inversion at each level, noisiest first; found again where it was saved whole."""
    import torch

    from mezzotint_sampling.inversion import ddim_inversion
    from mezzotint_sampling.levels import reversed_levels
    from mezzotint_sampling.noise import numbers_of
    from mezzotint_sampling.run import run

    if "path" in saved:
        return [each.to(ctx.device) for each in saved["path"]]
    data = latents.data.to(device=ctx.device, dtype=torch.float32)
    path = [data]

    def on_state(state: Any, evaluations: int) -> None:
        if state.step % iterations == 0:
            path.append(state.x)
        ctx.progress(state.step, total)

    run(
        ddim_inversion, model, conditioning, data, reversed_levels(sigmas),
        numbers_of(Noise(seed=0), tuple(data.shape), ctx.device),
        on_state=on_state, name="ddim_inversion", options={"iterations": iterations},
    )  # fmt: skip
    return path[::-1]


def _sampled(
    ctx: Context, model: Predictor, conditioning: Conditioning, noise: Tensor, sigmas: Sigmas, total: int
) -> Tensor:
    """Where DDIM leads from the noise."""
    from mezzotint_sampling.noise import numbers_of
    from mezzotint_sampling.run import run

    steps = len(sigmas.sigmas) - 1
    return run(
        "ddim", model, conditioning, noise, sigmas, numbers_of(Noise(seed=0), tuple(noise.shape), ctx.device),
        on_state=lambda state, _: ctx.progress(total - steps + state.step, total),
    )  # fmt: skip


def _error(got: Tensor, wanted: Tensor) -> float:
    return (got - wanted).square().mean().item()


def _pursuit(saved: Any, noise: Tensor, device: str) -> Any:
    from mezzotint_sampling.null_text_optimisation import Pursuit

    if "path" not in saved:
        return Pursuit(0, noise)
    nulls = tuple(null.to(device) for null in saved["nulls"])
    return Pursuit(len(nulls), saved["x"].to(device), nulls, tuple(saved["rows"]))


def _save(ctx: Context, path: list[Tensor], state: Any) -> None:
    ctx.save_state(
        {
            "path": [each.cpu() for each in path],
            "x": state.x.cpu(),
            "nulls": [null.cpu() for null in state.nulls],
            "rows": list(state.rows),
        }
    )
