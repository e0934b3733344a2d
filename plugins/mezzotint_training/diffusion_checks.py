"""What of an architecture, an autoencoder, a conditioner and the diffusion objective's settings goes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mezzotint import UserError

if TYPE_CHECKING:
    from mezzotint import Conditioning
    from mezzotint_training.diffusion import DiffusionObjective

__all__ = ["check_settings", "check_told"]

# What a conditioner tells, and the setting of models.unet by which the network reads it.
SIZES = {"context": "context", "pooled": "pooled", "label": "classes"}


def check_settings(objective: DiffusionObjective) -> None:
    """Raises: UserError: settings that the architecture was not made for."""
    made, autoencoder = objective.architecture, objective.autoencoder
    if (made.space == "pixels") != (autoencoder is None):
        have = "an autoencoder is given" if autoencoder else "none is given"
        raise UserError(
            f"training.diffusion: the architecture works in {made.space!r} and {have}: give both nodes the "
            "autoencoder, or neither"
        )
    if autoencoder is not None and autoencoder.space != made.space:
        raise UserError(
            "training.diffusion: this autoencoder is not the one that the architecture was made for: give both "
            "nodes the same"
        )
    _check_shown(objective)


def _check_shown(objective: DiffusionObjective) -> None:
    made, config = objective.architecture, objective.architecture.config
    side, small = made.sample_size * made.downscale, bool(config.get("low_res"))
    if bool(objective.low_res) != small or objective.low_res >= side:
        wanted = f"1 to {side - 1}" if small else "0"
        raise UserError(
            f"training.diffusion: low_res is {objective.low_res}, the side of the small picture; an architecture "
            f"of models.unet with low_res={small} and {side} pixels wants {wanted}"
        )
    if objective.low_res_noise and not config.get("level"):
        raise UserError(
            "training.diffusion: low_res_noise is above 0, and the architecture is not told the level: "
            "models.unet with level=true"
        )
    extra = made.channels + 1 if objective.inpaint else 0
    if int(config.get("extra", 0)) != extra:
        raise UserError(
            f"training.diffusion: with inpaint={objective.inpaint} the architecture has {extra} extra channels, "
            f"got {config.get('extra', 0)}: set models.unet's extra to {extra}"
        )


def check_told(null: Conditioning | None, config: Mapping[str, Any]) -> None:
    """null: what is told of an item about which nothing is, or None without a conditioner.

    Raises: UserError: it is not what a network of this configuration reads.
    """
    given = [name for name in SIZES if getattr(null, name, None) is not None]
    read = [name for name, size in SIZES.items() if config.get(size)]
    if "context" in read and config.get("class_tokens"):
        # Its attention reads what it makes of the class itself.
        read.remove("context")
    if given and not set(given) & set(read):
        raise UserError(
            f"training.diffusion: the conditioner tells {' and '.join(given)}, and the architecture reads "
            f"{' and '.join(read) or 'nothing'}: set models.unet's {' or '.join(SIZES[n] for n in given)}"
        )
    for name in read:
        value = getattr(null, name, None)
        if value is None:
            have = f"the conditioner tells {' and '.join(given)}" if given else "there is no conditioner"
            raise UserError(
                f"training.diffusion: the architecture reads {name} (models.unet's {SIZES[name]}), and {have}"
            )
        if name == "label" and int(value[0]) != config["classes"]:
            raise UserError(
                f"training.diffusion: the architecture has {config['classes']} classes, and the conditioner's "
                f"null class is number {int(value[0])}: set classes of both to the same number"
            )
        if name != "label" and value.shape[-1] != config[name]:
            raise UserError(
                f"training.diffusion: the conditioner's {name} is {value.shape[-1]} wide, the architecture reads "
                f"{config[name]}: set models.unet's {name} to {value.shape[-1]}"
            )
