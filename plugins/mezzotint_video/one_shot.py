"""`video.tune_on_clip`: one clip teaches a model of pictures how it moves (Tune-A-Video)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mezzotint import Autoencoder, Denoiser, UserError, Video, node
from mezzotint_training import Conditioner, Objective
from mezzotint_video.motion_objective import MotionObjective, Name

if TYPE_CHECKING:
    from typing import Any

    from mezzotint import Context
    from mezzotint_video.one_shot_task import OneShotTask

__all__ = ["OneShotObjective", "tune_on_clip"]


@dataclass(frozen=True, eq=False, kw_only=True)
class OneShotObjective(MotionObjective):
    """Fields as in `video.tune_on_clip`."""

    video: Video
    caption: str = ""
    reads_dataset: ClassVar[bool] = False

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> OneShotTask:
        from mezzotint_video.one_shot_task import open_one_shot

        return open_one_shot(self, ctx, seed, batch)


@node("video.tune_on_clip")
def tune_on_clip(
    denoiser: Denoiser,
    conditioner: Conditioner,
    video: Video,
    autoencoder: Autoencoder | None = None,
    *,
    caption: Annotated[str, Field(max_length=10_000)],
    tuned: Annotated[list[Name], Field(max_length=100)] = ["attn1.to_q", "attn2.to_q"],  # noqa: B006
    position: Literal["none", "sinusoidal", "relative", "rotary"] = "sinusoidal",
    drop: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Objective:
    """Tune a denoiser of pictures on one clip with sparse-causal attention; training.train wants no data set then.

    New temporal attention, which does nothing at first, learns the motion, and the named tensors where to look.
    video.inflate and then video.sparse_causal put the weights on the same denoiser.

    denoiser: to begin from; as it is, without guidance.
    conditioner: what it is told of the clip's caption, as context.
    video: one clip of the denoiser's own size, two frames at least.
    autoencoder: whose latents it denoises, if it does not work in pixels.
    caption: what the clip shows.
    tuned: tensors of the denoiser whose names contain one of these are trained beside the temporal attention.
    position: how temporal attention tells frames apart.
    drop: share of the steps in which the words are left out.

    Raises: UserError: patches on the denoiser, several clips, a clip of one frame, another size; when training
    starts, names that no tensor has.
    Source: Wu et al. 2022, "Tune-A-Video", sections 3.2 and 3.3.
    """
    where = "video.tune_on_clip"
    if denoiser.patches:
        raise UserError(f"{where}: wanted the denoiser as it is, got one with patches: guide it afterwards")
    if (denoiser.space == "pixels") != (autoencoder is None):
        raise UserError(
            f"{where}: the denoiser works in {denoiser.space!r}; give its autoencoder if that is not pixels, and "
            "none if it is"
        )
    clips, frames, *size = video.data.shape
    if clips != 1 or frames < 2:
        raise UserError(
            f"{where}: wanted one clip of two frames at least, got {clips} of {frames}; a single picture has no "
            "motion to learn: graphs/editing/imagic.json is made for one"
        )
    side = denoiser.sample_size * denoiser.downscale
    if size != [side, side, 3]:
        raise UserError(
            f"{where}: this denoiser wants clips [1, F, {side}, {side}, 3], got {list(video.data.shape)}; "
            "image.load_video brings them there with width and height"
        )
    return OneShotObjective(
        denoiser=denoiser, conditioner=conditioner, autoencoder=autoencoder, video=video, caption=caption,
        tuned=tuple(tuned), convolution=False, position=position, reads_text=False, frames="independent",
        drop=drop,
    )  # fmt: skip
