"""A picture as a prompt, without training: a second softmax over what the model sees in a reference picture.

    out = (1 - strength) attention(query, own keys and values) + strength attention(query, reference's)

Two terms, decoupled as in Ye et al. 2023, "IP-Adapter", eq. 5; but there the second one reads a picture's
embedding by trained projections, and here the reference's own places, at the noise level of the sample, in the
self-attention. It carries colour and texture, and does not know what the picture means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Denoiser, Latents, UserError, node
from mezzotint_attention.injection import Injection, Opened, inject
from mezzotint_attention.looking import bare, limited, reading
from mezzotint_attention.sites import Sites

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Attend, AttentionCall, AttentionSite, Context, Predictor
    from mezzotint_attention.injection import Evaluation

__all__ = ["PicturePrompt", "picture_prompt"]

Part01 = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class PicturePrompt(Injection):
    """Self-attention reads a reference picture too, by a share of `strength`, in the samples' own rows.

    reference: latents [1, C, H, W], clean. told: what the model is told of the reference. seed: of its noise.
    """

    sites: Sites = field(default_factory=lambda: Sites(kinds=("self",)))
    reference: Any = None
    told: Conditioning = field(default_factory=Conditioning)
    strength: float = 0.5
    seed: int = 0
    order: int = 100

    def open(self, model: Predictor, ctx: Context) -> Opened:
        return _Reading(self, bare(model), self.sites.of(model))


class _Reading(Opened):
    """Evaluates the denoiser at the reference, noised as the sample is, before each evaluation of the sample."""

    def __init__(self, settings: PicturePrompt, model: Any, sites: list[AttentionSite]) -> None:
        self.settings = settings
        self.model = model
        self.sites = sites
        self.read: dict[str, tuple[Tensor, Tensor]] = {}
        self.own: list[int] = []

    def begin(self, evaluation: Evaluation) -> bool:
        from mezzotint_kernels import normals

        rows = evaluation.rows
        if rows.frames > 1:
            raise UserError("attention.picture_prompt is for pictures; the latents are a clip")
        self.own = [row for row, mine in enumerate(rows.own) if mine]
        if not self.own:
            return False
        reference = self.settings.reference.to(evaluation.x)
        if reference.shape[1] != evaluation.x.shape[1]:
            raise UserError(
                f"attention.picture_prompt: the reference has {reference.shape[1]} channels, the denoiser's "
                f"latents {evaluation.x.shape[1]}; encode it with the autoencoder of the same checkpoint"
            )
        level = evaluation.level
        noise = normals(self.settings.seed, tuple(reference.shape), device=reference.device).to(reference)
        with reading(self.model, self.sites) as self.read:
            self.model.predict(level.alpha * reference + level.sigma * noise, level, self.settings.told)
        return True

    def attend(self, call: AttentionCall, attend: Attend) -> Tensor:
        import torch

        from mezzotint_kernels import attention_terms

        key, value = self.read[call.site.name]
        plain = attend(call)
        own = torch.tensor(self.own)
        share = self.settings.strength
        term = attention_terms(
            call.query, key.contiguous(), value.contiguous(), own[:, None],
            torch.zeros(len(own), 1, 1, dtype=own.dtype),
            weights=torch.full((len(own), 1), share), scale=call.scale,
        )  # fmt: skip
        out = plain.clone()
        place = own.to(plain.device)
        out[place] = plain[place] * (1 - share) + term
        return out


@node("attention.picture_prompt")
def picture_prompt(
    denoiser: Denoiser,
    reference: Latents,
    conditioning: Conditioning,
    sites: Sites | None = None,
    *,
    strength: Part01 = 0.5,
    start: Part01 = 0.0,
    end: Part01 = 1.0,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Denoiser:
    """A picture as a prompt, without training: pictures take on a reference's colours and textures.

    denoiser: the model, guided or not.
    reference: the picture's latents, by `models.encode`; one.
    conditioning: what the reference shows, or an empty text.
    sites: layers to work at; null takes all self-attention.
    strength: the reference's share in each place's output; 0 is off, and every bit as without.
    start: from which part of the run on, 0 the noisiest end.
    end: up to which.
    seed: of the noise on the reference.

    Each step costs one further evaluation, of one row. An adapter that was trained for this knows what a picture
    means, and this does not.
    Raises: UserError: several references; when it runs, latents of another model.
    """
    if reference.data.ndim != 4 or len(reference.data) != 1:
        raise UserError(
            f"attention.picture_prompt: wanted the latents of one picture, got {tuple(reference.data.shape)}; "
            "image.select takes one of several"
        )
    if not strength:
        return denoiser
    chosen = limited(sites, Sites(kinds=("self",)), "attention.picture_prompt")
    patch = PicturePrompt(
        sites=chosen,
        reference=reference.data,
        told=conditioning,
        strength=strength,
        seed=seed,
        start=start,
        end=end,
    )
    return inject(denoiser, patch)
