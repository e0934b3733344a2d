"""`training.first_stage`: the autoencoder of a latent diffusion model, vector-quantised or with a small KL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Autoencoder, UserError, node
from mezzotint_training.objective import Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_training.first_stage_task import FirstStageTask

__all__ = ["FirstStage", "first_stage"]

Width = Annotated[int, Field(ge=4, le=2048, multiple_of=4)]
Weight = Annotated[float, Field(ge=0, le=1e6)]


@dataclass(frozen=True, eq=False)
class FirstStage(Objective):
    """An autoencoder and what it is trained for; fields as in `training.first_stage`."""

    kind: Literal["vq", "kl"] = "vq"
    channels: tuple[int, ...] = (32, 32, 64)
    latent_channels: int = 4
    codes: int = 1024
    commitment: float = 0.25
    kl: float = 1e-6
    adversarial: float = 0.0
    adversarial_from: int = 0
    critic_channels: int = 32
    start: Autoencoder | None = None
    train_encoder: bool = True

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> FirstStageTask:
        from mezzotint_training.first_stage_task import open_first_stage

        return open_first_stage(self, ctx, reader, seed, batch)


@node("training.first_stage")
def first_stage(
    start: Autoencoder | None = None,
    *,
    kind: Literal["vq", "kl"] = "vq",
    channels: Annotated[list[Width], Field(min_length=1, max_length=6)] = [32, 32, 64],  # noqa: B006
    latent_channels: Annotated[int, Field(ge=1, le=64)] = 4,
    codes: Annotated[int, Field(ge=2, le=65536)] = 1024,
    commitment: Weight = 0.25,
    kl: Weight = 1e-6,
    adversarial: Weight = 0.0,
    adversarial_from: Annotated[int, Field(ge=0)] = 0,
    critic_channels: Width = 32,
    train_encoder: bool = True,
) -> Objective:
    """The first stage of latent diffusion: an autoencoder that halves pictures len(channels) - 1 times.

    The loss is the absolute error of the pixels, and a term that keeps the latents in bounds. The paper's LPIPS is
    left out: its weights cannot be had here.

    start: an autoencoder of the same shape to begin from; one with a KL may become one with a codebook.
    kind: vq is quantised inside the decoder, so that its latents are continuous; kl has a posterior.
    channels: of the levels, finest first. latent_channels: of the latents.
    codes: vectors of the codebook. They begin at what the encoder gives, and lost ones begin anew.
    commitment: weight of the encoder's distance to its codes; the codebook's own has weight 1. That is the
        paper's assignment: diffusers' quantiser has the two the other way round unless told otherwise.
    kl: weight of the divergence of the posterior from a standard normal, both losses summed over a picture.
    adversarial: weight of a patch critic's hinge loss, beside the adaptive one; 0 is none, the paper's is 0.75.
    adversarial_from: first batch in which it counts, and the critic learns.
    critic_channels: of the critic's first layer.
    train_encoder: without it only codebook and decoder learn, and the latents stay those of `start`.

    Source: Rombach et al. 2022, appendix G; Esser et al. 2021, eq. 4 to 7; van den Oord et al. 2017, eq. 3.
    Raises: UserError: an encoder that neither learns nor is given.
    """
    if start is None and not train_encoder:
        raise UserError("training.first_stage: train_encoder is false, so 'start' has to give the encoder")
    return FirstStage(
        kind=kind, channels=tuple(channels), latent_channels=latent_channels, codes=codes, commitment=commitment,
        kl=kl, adversarial=adversarial, adversarial_from=adversarial_from, critic_channels=critic_channels,
        start=start, train_encoder=train_encoder,
    )  # fmt: skip
