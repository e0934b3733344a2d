"""The diffusion objective as a value: which network, what it is told, how its errors count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mezzotint import Autoencoder
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
    frozen: tuple[str, ...] = ()

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> DiffusionTask:
        from mezzotint_training.diffusion_checks import check_settings
        from mezzotint_training.diffusion_task import DiffusionTask

        check_settings(self)
        conditions = None if self.conditioner is None else self.conditioner.open(ctx, reader, seed)
        encoder = None if self.autoencoder is None else ctx.realise(self.autoencoder)
        return DiffusionTask(self, self.architecture.build(), conditions, encoder, reader, seed, batch)
