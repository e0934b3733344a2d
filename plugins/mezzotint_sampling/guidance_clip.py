"""Guidance by CLIP: towards pictures that lie near a text in the space that both have in common.

    log_density = scale * cos(picture, text)

of the noisy sample, by a picture tower that was trained on noise (Nichol et al. 2021, section 2.4), or of the
clean picture that the model predicts, by any CLIP. A network that sees one picture at one place is easily fooled;
random crops make its gradient mean more (Avrahami et al. 2022, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Autoencoder, Conditioning, Denoiser, ImageEncoder, NoiseLevel, Sigmas, UserError, node
from mezzotint_sampling.guidance_gradient import GradientGuidance
from mezzotint_sampling.guidance_schedule import GuidanceSchedule

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context
    from mezzotint_sampling.guidance_gradient import LogDensity

__all__ = ["ClipGuidance", "guide_by_clip"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipGuidance(GradientGuidance):
    """Towards a text by a picture tower. text: [1 or B, D] under `pooled`; the other fields as in the node."""

    encoder: ImageEncoder
    text: Conditioning
    autoencoder: Autoencoder | None = None
    crops: int = 0
    smallest: float = 0.7
    seed: int = 0

    def log_density(self, ctx: Context) -> LogDensity:
        from torch.nn.functional import normalize

        tower = ctx.realise(self.encoder)
        decoder = None if self.autoencoder is None else ctx.realise(self.autoencoder)
        wanted = self.text.pooled
        assert wanted is not None
        if self.of == "x" and not hasattr(tower, "embed_noisy"):
            raise UserError(
                "sampling.guide_by_clip: this picture encoder reads clean pictures only; set of to x0 or "
                "x0_fixed, or take one that was trained on noise (training.noised_clip)"
            )

        def cosine(seen: Tensor, level: NoiseLevel) -> Tensor:
            if seen.ndim != 4:
                raise UserError(f"sampling.guide_by_clip: guides pictures [B, C, H, W], got {list(seen.shape)}")
            made = self._embedded(tower, decoder, seen, level, ctx)
            text = normalize(wanted.to(made), dim=-1)
            if text.shape[1] != made.shape[1] or len(made) % len(text):
                raise UserError(
                    f"sampling.guide_by_clip: the pictures' embeddings are {list(made.shape)}, the texts' "
                    f"{list(text.shape)}; wanted one width, and one text or one for each picture"
                )
            similar: Tensor = (made * text.repeat(len(made) // len(text), 1)).sum(1)
            return similar

        return cosine

    def _embedded(self, tower: Any, decoder: Any, seen: Tensor, level: NoiseLevel, ctx: Context) -> Tensor:
        """Embeddings [B, D] of length 1; of random crops their mean, which is shorter."""
        if self.of == "x":
            return tower.embed_noisy(seen, level)  # type: ignore[no-any-return]
        pixels = (seen + 1).movedim(1, -1) / 2 if decoder is None else decoder.decode(seen)
        if not self.crops:
            return tower.embed(pixels)  # type: ignore[no-any-return]
        numbers = ctx.noise(self.seed, "sampling.guide_by_clip").normal((len(pixels), self.crops, 3), level.step)
        views = cropped(pixels, numbers, self.smallest)
        made: Tensor = tower.embed(views.flatten(0, 1)).unflatten(0, views.shape[:2]).mean(1)
        return made


def cropped(pixels: Tensor, numbers: Tensor, smallest: float) -> Tensor:
    """Random parts of pictures at their full size, bilinear, differentiable.

    pixels: [B, H, W, C]. numbers: [B, N, 3] standard normal: the side, from `smallest` to 1, and the place.
    returns: [B, N, H, W, C].
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    drawn = torch.special.ndtr(numbers.to(pixels)).flatten(0, 1)  # uniform in 0..1
    side = smallest + (1 - smallest) * drawn[:, 0]
    middle = (1 - side)[:, None] * (2 * drawn[:, 1:] - 1)
    table = torch.zeros(len(drawn), 2, 3, dtype=pixels.dtype, device=pixels.device)
    table[:, 0, 0], table[:, 1, 1], table[:, :, 2] = side, side, middle
    many = pixels.movedim(-1, 1).repeat_interleave(numbers.shape[1], 0)
    grid = affine_grid(table, list(many.shape), align_corners=False)
    # Half a pixel beyond the outermost centres is still the picture: without this it would fade to black there.
    views = grid_sample(many, grid, align_corners=False, padding_mode="border")
    return views.movedim(1, -1).unflatten(0, numbers.shape[:2])


@node("sampling.guide_by_clip")
def guide_by_clip(
    denoiser: Denoiser,
    encoder: ImageEncoder,
    text: Conditioning,
    autoencoder: Autoencoder | None = None,
    sigmas: Sigmas | None = None,
    schedule: GuidanceSchedule | None = None,
    *,
    scale: Annotated[float, Field(ge=0, le=1_000_000)] = 20.0,
    of: Literal["x", "x0", "x0_fixed"] = "x",
    form: Literal["ddim", "ancestral"] = "ddim",
    crops: Annotated[int, Field(ge=0, le=64)] = 0,
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.7,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Denoiser:
    """Guidance towards a text, by the gradient of a picture's likeness to it in CLIP's space.

    denoiser: the model to guide, guided otherwise or not; the amounts add up.
    encoder: CLIP's picture tower; for of = x one that was trained on noise, of the denoiser's size.
    text: of models.encode_text with the same CLIP: one for all pictures, or one for each.
    autoencoder: decodes the latents of a denoiser that does not work on pixels; for x0 and x0_fixed.
    sigmas: those of the run; the ancestral form needs them.
    schedule: how the scale goes along the run; null keeps it.
    scale: of the cosine; 0 is no guidance.
    of: what the encoder is shown: x, the noisy picture; x0, the clean one that the model predicts, with the
        gradient through the model; x0_fixed holds the model's noise constant, which is cheaper.
    form: ddim changes the predicted noise, for any sampler; ancestral moves the mean by variance times gradient,
        for the sampler ddpm.
    crops: random parts of the clean picture whose mean is taken; 0 shows it whole.
    smallest: share of the picture's side that the smallest of these have.
    seed: of the crops.

    Source: Nichol et al. 2021, section 2.4.
    Raises: UserError: no embedding in the text; the ancestral form without sigmas; latents without an autoencoder.
    """
    if text.pooled is None or text.pooled.ndim != 2:
        raise UserError("sampling.guide_by_clip: the text has no pooled embedding [B, D]; encode it with CLIP")
    if form == "ancestral" and sigmas is None:
        raise UserError("the ancestral form of guidance needs the sigmas of the run")
    if of == "x" and (crops or autoencoder is not None):
        raise UserError("sampling.guide_by_clip: crops and autoencoder are for clean pictures; set of to x0_fixed")
    if of != "x" and autoencoder is None and denoiser.space != "pixels":
        raise UserError("sampling.guide_by_clip: the denoiser works on latents; connect its autoencoder")
    patch = ClipGuidance(
        encoder=encoder, text=Conditioning(pooled=text.pooled), autoencoder=autoencoder, scale=scale, of=of,
        form=form, sigmas=sigmas, schedule=schedule, crops=crops, smallest=smallest, seed=seed,
    )  # fmt: skip
    return denoiser.patched(patch)
