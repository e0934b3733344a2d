"""Guidance of an edit by CLIP: what is inside a mask is to look like a text, and only that.

    x_in = sigma x0 + (1 - sigma) x                                   x0: the predicted clean picture
    loss = scale * mean_i D(view_i(x_in * mask), text) + range * mean((x0 - clamp(x0))^2)
    D(u, v) = 2 asin^2(|u - v| / 2)                                   of unit vectors

Source: Avrahami et al. 2022, "Blended Diffusion", section 3 and its released code. Its blending with the rest of
the picture is a mask in `sampling.sample`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mezzotint import Conditioning, Denoiser, ImageEncoder, Latents, NoiseLevel, Sigmas, UserError, node
from mezzotint_sampling.guidance_gradient import GradientGuidance, GradientPredictor
from mezzotint_sampling.guidance_schedule import GuidanceSchedule
from mezzotint_sampling.wrapped import clean, finished

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Prediction, Predictor

    Density = Callable[[Tensor, Tensor, NoiseLevel], Tensor]

__all__ = ["EditGuidance", "guide_edit", "spherical"]


@dataclass(frozen=True, eq=False, kw_only=True)
class EditGuidance(GradientGuidance):
    """Towards a text inside a mask. text: [1 or B, D] under `pooled`. mask: [B or 1, 1, H, W], 1 = to be edited.

    range_scale: of the bounds on colours, against `scale` of CLIP's distance. The other fields as in the node.
    """

    encoder: ImageEncoder
    text: Conditioning
    mask: Tensor
    range_scale: float = 50.0
    views: int = 8
    seed: int = 0

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        if self.form == "ancestral" and self.sigmas is None:
            raise UserError("the ancestral form of guidance needs the sigmas of the run")
        yield _EditPredictor(model, self.density(ctx), self)

    def density(self, ctx: Context) -> Density:
        """([B, 3, H, W] clean, the noisy sample, level) to [B]: minus the loss, over `scale`."""
        tower = ctx.realise(self.encoder)
        wanted = self.text.pooled
        assert wanted is not None

        def of_edit(x0: Tensor, x: Tensor, level: NoiseLevel) -> Tensor:
            mask = self.mask.to(x0)
            if mask.shape[-2:] != x0.shape[-2:] or len(x0) % len(mask) or len(x0) % len(wanted):
                raise UserError(
                    f"sampling.guide_edit: the mask is {list(mask.shape)} and the text {list(wanted.shape)}, the "
                    f"sample {list(x0.shape)}; wanted one size, and one for all samples or one for each"
                )
            shown = (level.sigma * x0 + (1 - level.sigma) * x) * mask.repeat(len(x0) // len(mask), 1, 1, 1)
            made = tower.embed((self._views(shown, level, ctx).flatten(0, 1).movedim(1, -1) + 1) / 2)
            text = wanted.to(made).repeat_interleave(self.views, 0) if len(wanted) > 1 else wanted.to(made)
            text = text.repeat(len(made) // len(text), 1)
            distance = spherical(made, text).view(len(x0), self.views).mean(1)
            beyond = ((x0 - x0.clamp(-1, 1)) ** 2).flatten(1).mean(1)
            density: Tensor = -distance - beyond * (self.range_scale / self.scale)
            return density

        return of_edit

    def _views(self, shown: Tensor, level: NoiseLevel, ctx: Context) -> Tensor:
        """[B, N, 3, H, W]: the picture itself, and views that are drawn anew at each step."""
        import torch

        from mezzotint_sampling.views import NUMBERS, homographies, seen_through

        others = self.views - 1
        itself = shown[:, None]
        if not others:
            return itself
        normal = ctx.noise(self.seed, "sampling.guide_edit").normal((len(shown), others, NUMBERS), level.step)
        maps = homographies(torch.special.ndtr(normal.to(shown)))
        return torch.cat([itself, seen_through(shown, maps)], dim=1)


class _EditPredictor(GradientPredictor):
    """As any gradient's; its density is of the clean picture and of the sample together."""

    def __init__(self, model: Predictor, density: Density, settings: EditGuidance) -> None:
        super().__init__(model, lambda seen, level: density(seen, seen, level), settings)
        self.density = density

    def _evaluated(
        self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None
    ) -> tuple[Prediction, Tensor]:
        import torch

        with torch.enable_grad():
            sample = x.detach().requires_grad_()
            given = self.model.predict(sample, level, conditioning)
            x0 = clean(given.kind, level, sample, finished(given))
            (gradient,) = torch.autograd.grad(self.density(x0, sample, level).sum(), sample)
        outputs = tuple(output.detach() for output in given.outputs)
        variance = None if given.variance is None else given.variance.detach()
        return replace(given, outputs=outputs, variance=variance), gradient.to(outputs[0])


def spherical(u: Tensor, v: Tensor) -> Tensor:
    """2 asin^2(|u - v| / 2) of unit vectors [..., D]: half the squared angle between them, [...]."""
    # The root's slope at 0 and the arcsine's at 1 have no end.
    half = ((u - v).square().sum(-1) / 4).clamp(1e-12, 1 - 1e-6).sqrt()
    return 2 * half.asin() ** 2


@node("sampling.guide_edit")
def guide_edit(
    denoiser: Denoiser,
    encoder: ImageEncoder,
    text: Conditioning,
    latents: Latents,
    sigmas: Sigmas | None = None,
    schedule: GuidanceSchedule | None = None,
    *,
    scale: Annotated[float, Field(ge=0, le=1_000_000)] = 100.0,
    range_scale: Annotated[float, Field(ge=0, le=1_000_000)] = 50.0,
    views: Annotated[int, Field(ge=1, le=64)] = 8,
    form: Literal["ddim", "ancestral"] = "ddim",
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Denoiser:
    """Make a denoiser of pixels draw what a text says inside a mask, by CLIP's gradient (blended diffusion).

    denoiser: of pixels; it need not know texts.
    encoder: CLIP's picture tower, trained on clean pictures.
    text: of models.encode_text with the same CLIP: what the region is to show; one for all pictures, or one each.
    latents: the picture with a mask from models.set_mask; CLIP is shown the region alone, on grey. Sample these
        latents: the sampler blends what lies outside with the picture at each step.
    sigmas: those of the run; the ancestral form needs them.
    schedule: how the scale goes along the run; null keeps it.
    scale: of CLIP's distance; 0 is no guidance.
    range_scale: of the square of what lies beyond -1..1, against colours that guidance drives off.
    views: how many views of the region CLIP judges: itself, and random affine and perspective ones.
    form: ddim changes the predicted noise, for any sampler; ancestral moves the mean, for the sampler ddpm.
    seed: of the views.

    Source: Avrahami et al. 2022, "Blended Diffusion", section 3.
    Raises: UserError: no embedding in the text; a denoiser of latents; latents without a mask, or one that is 0
        throughout; the ancestral form without sigmas.
    """
    where = "sampling.guide_edit"
    if text.pooled is None or text.pooled.ndim != 2:
        raise UserError(f"{where}: the text has no pooled embedding [B, D]; encode it with CLIP")
    if denoiser.space != "pixels":
        raise UserError(
            f"{where}: the denoiser works on latents, and CLIP sees pixels; graphs/editing/"
            "blended_latent_diffusion.json edits latents by the denoiser's own text"
        )
    if latents.mask is None:
        raise UserError(f"{where}: the latents have no mask; models.set_mask says what is to be edited")
    if not latents.mask.any():
        raise UserError(f"{where}: the mask is 0 throughout, so nothing would change; make it white where it may")
    if form == "ancestral" and sigmas is None:
        raise UserError("the ancestral form of guidance needs the sigmas of the run")
    patch = EditGuidance(
        encoder=encoder, text=Conditioning(pooled=text.pooled), mask=latents.mask[:, -1:], scale=scale, of="x0",
        form=form, sigmas=sigmas, schedule=schedule, range_scale=range_scale, views=views, seed=seed,
    )  # fmt: skip
    return denoiser.patched(patch)
