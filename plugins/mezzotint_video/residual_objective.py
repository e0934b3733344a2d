"""`video.learn_residual`: VideoFusion's residual model, trained beside a base that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Autoencoder, Denoiser, Weights, node
from mezzotint_training import Conditioner, Objective
from mezzotint_video.motion_objective import MotionObjective, Name, Share, learn_motion

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_video.residual_task import ResidualTask

__all__ = ["ResidualObjective", "learn_residual"]


@dataclass(frozen=True, eq=False)
class ResidualObjective(MotionObjective):
    """Temporal layers of a residual model; `correlation` is how much of the noise is shared."""

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> ResidualTask:
        from mezzotint_video.motion_task import open_task
        from mezzotint_video.residual_task import ResidualTask

        made: ResidualTask = open_task(ResidualTask, self, ctx, reader, seed, batch)
        return made


@node("video.learn_residual")
def learn_residual(
    denoiser: Denoiser,
    conditioner: Conditioner,
    autoencoder: Autoencoder | None = None,
    start: Weights | None = None,
    *,
    tuned: list[Name] = ["attn2"],  # noqa: B006
    correlation: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    drop: Share = 0.1,
    focus: Share = 0.0,
) -> Objective:
    """Train the model of what differs between a clip's frames: temporal layers beside a copy of the base.

    denoiser: the base, a model of pictures, as it is; it stays so.
    conditioner, autoencoder, start, tuned, drop, focus: as in video.learn_motion.
    correlation: how much of the noise all frames share.

    Source: Luo et al. 2023, "VideoFusion", eq. 8 to 10; the base is not tuned along with it here.
    Raises: UserError: as video.learn_motion.
    """
    plain = learn_motion(
        denoiser, conditioner, autoencoder, start, tuned=tuned, correlation=correlation, drop=drop, focus=focus,
        frames="mixed",
    )  # fmt: skip
    fields: Mapping[str, Any] = {**vars(plain), "frames": "residual"}
    return ResidualObjective(**{name: value for name, value in fields.items() if not name.startswith("_")})
