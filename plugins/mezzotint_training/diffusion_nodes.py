"""The nodes of the diffusion objective, and of what a denoiser is told while it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mezzotint import Autoencoder, TextEncoder, node
from mezzotint_models import Architecture
from mezzotint_training.conditioner import Conditioner
from mezzotint_training.conditioners import LabelConditioner, TextConditioner, TrainedTextConditioner
from mezzotint_training.diffusion import DiffusionObjective
from mezzotint_training.objective import Objective

__all__ = ["condition_on_labels", "condition_on_text", "condition_on_trained_text", "diffusion"]

Share = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[int, Field(ge=8, le=4096)]
Few = Annotated[int, Field(ge=1, le=64)]


@node("training.diffusion")
def diffusion(
    architecture: Architecture,
    conditioner: Conditioner | None = None,
    autoencoder: Autoencoder | None = None,
    *,
    weighting: Literal["simple", "min_snr", "p2"] = "simple",
    gamma: Annotated[float, Field(gt=0, le=1e6)] | None = None,
    variance_weight: Annotated[float, Field(ge=0, le=1)] = 0.001,
    drop: Share = 0.1,
    loss: Literal["l2", "l1"] = "l2",
    low_res: Annotated[int, Field(ge=0, le=4096)] = 0,
    low_res_noise: Share = 0.0,
    inpaint: bool = False,
    focus: Share = 0.0,
    frozen: list[str] | None = None,
) -> Objective:
    """Train a denoiser: eps, v or x0 as its noise schedule says (Ho et al. 2020; Salimans and Ho 2022).

    Its weights come as one value: the network "unet", and what learnt along with it.

    architecture: the network, its noise schedule, the side of its pictures.
    conditioner: what it is told of an item; none is an unconditional model.
    autoencoder: whose latents it denoises, if it does not work in pixels.
    weighting: of the levels. simple: the target's error as it is; min_snr: of Hang et al. 2023; p2: of
    Choi et al. 2022 with k = 1.
    gamma: of the weighting; 5 for min_snr and 1 for p2 if none is given.
    variance_weight: of the variational bound, by which a network with learned variance learns it: times the number
    of steps, in bits per number, with the mean held fixed (Nichol and Dhariwal 2021).
    drop: share of items about which nothing is told, for classifier-free guidance.
    loss: l2 or l1 of the errors.
    low_res: side of the small picture that super-resolution starts from; it is the mean over areas, in 256 levels.
    low_res_noise: most noise on it, its level drawn per sample from 0 to this and told to the network.
    inpaint: tell the network a part of the picture: what is known times the mask, and the mask, 1 = keep.
    focus: share of times at sigma / alpha from 1 to 8, where outlines are decided; the others are uniform.
    frozen: patterns of names of the network's parameters, such as "network.mid_block.*", that stay as they begin.

    Raises: UserError: settings that the architecture was not made for, when training starts.
    """
    return DiffusionObjective(
        architecture, conditioner, autoencoder, weighting=weighting, gamma=gamma, variance_weight=variance_weight,
        drop=drop, loss=loss, low_res=low_res, low_res_noise=low_res_noise, inpaint=inpaint, focus=focus,
        frozen=tuple(frozen or ()),
    )  # fmt: skip


@node("training.condition_on_labels")
def condition_on_labels(*, classes: Annotated[int, Field(ge=1, le=10**6)]) -> Conditioner:
    """Tell a denoiser the items' label. Nothing is told by the null class, one further number.

    classes: how many there are, as in the architecture.

    Raises: UserError: items without a label, or with one that is none of these, when training starts.
    """
    return LabelConditioner(classes)


@node("training.condition_on_text")
def condition_on_text(encoder: TextEncoder) -> Conditioner:
    """Tell a denoiser the items' captions, by a text encoder that stays as it is.

    Each caption is encoded once, and remembered in half precision. Nothing is told by the empty caption.

    encoder: gives the tokens that the architecture reads, and the pooled vector if it takes one.

    Raises: UserError: items without a caption, when training starts.
    """
    return TextConditioner(encoder)


@node("training.condition_on_trained_text")
def condition_on_trained_text(
    start: TextEncoder | None = None, *, width: Width = 128, layers: Few = 3, heads: Few = 4
) -> Conditioner:
    """Tell a denoiser the items' captions, by a transformer that is trained along with it (GLIDE).

    Nothing is told by the empty caption. The data set's own tokenizer is used.

    start: a text encoder of CLIP's kind, whose copy is trained on; without it, a transformer with random numbers.
    width: of its tokens and of its pooled vector: the architecture's context and pooled.
    layers: of the transformer.
    heads: of its attention.

    Raises: UserError: items without a caption, or a data set without a tokenizer, when training starts.
    """
    return TrainedTextConditioner(
        "mezzotint.glide_text", {"width": width, "pooled": width, "layers": layers, "heads": heads}, start
    )
