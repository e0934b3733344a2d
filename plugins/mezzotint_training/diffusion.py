"""The diffusion objective as a value: which network, what it is told, how its errors count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mezzotint import Autoencoder, UserError
from mezzotint_models import Architecture
from mezzotint_training.conditioner import Conditioner
from mezzotint_training.objective import Objective

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_training.diffusion_task import DiffusionTask

__all__ = ["DiffusionObjective"]

GAMMA = {"simple": 0.0, "min_snr": 5.0, "p2": 1.0}


@dataclass(frozen=True, eq=False)
class DiffusionObjective(Objective):
    """A denoiser; fields as in `training.diffusion`."""

    architecture: Architecture
    conditioner: Conditioner | None = None
    autoencoder: Autoencoder | None = None
    weighting: Literal["simple", "min_snr", "p2"] = "simple"
    gamma: float | None = None
    variance_weight: float = 0.001
    drop: float = 0.1
    loss: Literal["l2", "l1"] = "l2"
    low_res: int = 0
    low_res_noise: float = 0.0
    inpaint: bool = False
    focus: float = 0.0

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> DiffusionTask:
        from mezzotint_training.diffusion_task import DiffusionTask

        self._check()
        conditions = None if self.conditioner is None else self.conditioner.open(ctx, reader, seed)
        encoder = None if self.autoencoder is None else ctx.realise(self.autoencoder)
        return DiffusionTask(self, self.architecture.build(), conditions, encoder, reader, seed, batch)

    def _check(self) -> None:
        """Raises: UserError: settings that the architecture was not made for."""
        made, config = self.architecture, self.architecture.config
        if (made.space == "pixels") != (self.autoencoder is None):
            have = "an autoencoder is given" if self.autoencoder else "none is given"
            raise UserError(
                f"training.diffusion: the architecture works in {made.space!r} and {have}: give both nodes the "
                "autoencoder, or neither"
            )
        if self.autoencoder is not None and self.autoencoder.space != made.space:
            raise UserError(
                "training.diffusion: this autoencoder is not the one that the architecture was made for: give "
                "both nodes the same"
            )
        side = made.sample_size * made.downscale
        if bool(self.low_res) != bool(config.get("low_res")) or self.low_res >= side:
            raise UserError(
                f"training.diffusion: low_res is {self.low_res}, the side of the small picture; an architecture "
                f"of models.unet with low_res={bool(config.get('low_res'))} and {side} pixels wants "
                + (f"1 to {side - 1}" if config.get("low_res") else "0")
            )
        if self.low_res_noise and not config.get("level"):
            raise UserError(
                "training.diffusion: low_res_noise is above 0, and the architecture is not told the level: "
                "models.unet with level=true"
            )
        wanted = made.channels + 1 if self.inpaint else 0
        if int(config.get("extra", 0)) != wanted:
            raise UserError(
                f"training.diffusion: with inpaint={self.inpaint} the architecture has {wanted} extra channels, "
                f"got {config.get('extra', 0)}: set models.unet's extra to {wanted}"
            )
