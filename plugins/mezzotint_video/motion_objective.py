"""`video.learn_motion`: temporal layers, trained beside a denoiser of pictures that exists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mezzotint import Autoencoder, Denoiser, UserError, Weights, node
from mezzotint_training import Conditioner, Objective
from mezzotint_video.side_channels import Side, side_of

if TYPE_CHECKING:
    from mezzotint import Context
    from mezzotint_video.motion_task import MotionTask

__all__ = ["MotionObjective", "learn_motion"]

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True, eq=False)
class MotionObjective(Objective):
    """Temporal layers of a denoiser; fields as in `video.learn_motion`.

    side: what the side channels hold; a system's own task may have others.
    """

    denoiser: Denoiser
    conditioner: Conditioner
    autoencoder: Autoencoder | None = None
    start: Weights | None = None
    tuned: tuple[str, ...] = ()
    convolution: bool = True
    attention: bool = True
    position: str = "relative"
    window: int = 1
    causal: bool = False
    reads_text: bool = True
    frame_words: int = 0
    crop: int | None = None
    follows: bool = False
    reader: int = 0
    named: float = 0.0
    frames: str = "mixed"
    correlation: float = 0.5
    images: int = 0
    drop: float = 0.1
    focus: float = 0.0
    side: str = ""
    apart: float = 0.0

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> MotionTask:
        from mezzotint_video.motion_task import MotionTask, open_task

        return open_task(MotionTask, self, ctx, reader, seed, batch)


@node("video.learn_motion")
def learn_motion(
    denoiser: Denoiser,
    conditioner: Conditioner,
    autoencoder: Autoencoder | None = None,
    start: Weights | None = None,
    *,
    tuned: list[Name] = ["attn2"],  # noqa: B006
    convolution: bool = True,
    attention: bool = True,
    position: Literal["none", "sinusoidal", "relative", "rotary"] = "relative",
    window: Literal[1, 3, 5] = 1,
    causal: bool = False,
    reads_text: bool = True,
    frame_words: Annotated[int, Field(ge=0, le=8)] = 0,
    crop: Annotated[int, Field(ge=1, le=4096)] | None = None,
    follows: bool = False,
    reader: Annotated[int, Field(ge=0, le=8)] = 0,
    named: Annotated[float, Field(ge=0, le=1)] = 0.0,
    frames: Literal["independent", "shared", "mixed", "progressive"] = "mixed",
    correlation: Share = 0.5,
    images: Annotated[int, Field(ge=0, le=64)] = 0,
    side: Side = "none",
    drop: Share = 0.1,
    focus: Share = 0.0,
    apart: Share = 0.0,
) -> Objective:
    """Train temporal layers on clips, beside a denoiser of pictures which stays as it is but for what is named.

    The weights come as one value, "temporal_layers" and the differences "tuned", which video.inflate puts on the
    same denoiser.

    denoiser: to begin from; as it is, without guidance.
    conditioner: what it is told of a clip, as context.
    autoencoder: whose latents it denoises, if it does not work in pixels.
    start: temporal layers to begin from, as trained before; layers of other shapes begin anew.
    tuned: tensors of the denoiser whose names contain one of these are trained too; none leaves all as they are.
    convolution: whether there is a pseudo-3D convolution behind each residual block.
    attention: whether there is temporal attention behind each spatial one.
    position: how temporal attention tells frames apart.
    window: side of the neighbourhood that it sees in every frame; 1 is each place by itself.
    causal: whether a frame sees only those before it.
    reads_text: whether the layers read the words themselves, which say the motion.
    frame_words: blocks of a small network that says the words anew for each frame ("on the left" at the first,
    "on the right" at the last), which the picture layers then read; 0 leaves the words as they are.
    crop: frames of each clip that a step sees, a run of them from a random start, so that a batch holds more
    different clips; with 1 only what each frame is told is learnt, fastest. All if null.
    follows: whether the heads of temporal attention follow what moves: each looks at every frame shifted, turned
    and scaled by what the frame is told.
    reader: blocks of a small network that reads the words for what each frame is told, which a text encoder that
    never heard of motion does not say plainly; 0 reads them token by token.
    named: weight of a second loss, that what the reader finds in captions names their motion; of data sets that
    know it, as the moving small world. Clips are few, captions as many as wanted.
    frames: how the noise of a clip's frames is related; sampling wants the same.
    correlation: of the noise of any two frames, if mixed; of neighbours, if progressive.
    images: single pictures in each clip's row, which no temporal layer touches: joint training of both.
    side: what the model is shown of the clip: frames that are known (video.condition_on_frames), the clip at half
    of its rate (video.condition_on_slow_clip), or the depth of each frame (video.condition_on_depth).
    drop: share of clips whose words are left out, for guidance.
    focus: share of the times where outlines are decided (sigma / alpha from 1 to 8).
    apart: share of the steps that take each frame by itself, past the temporal layers: what video.guide_temporally
    compares with. All of them train a model of pictures that is shown the side channels.

    Raises: UserError: patches on the denoiser, nothing to train; when training starts, names that no tensor has.
    """
    if denoiser.patches:
        raise UserError(
            "video.learn_motion: wanted the denoiser as it is, got one with patches: guide it afterwards"
        )
    if not convolution and not attention:
        raise UserError("video.learn_motion: neither convolutions nor attention leaves no temporal layer to train")
    if named and not (reads_text and reader):
        raise UserError(
            "video.learn_motion: to be named, the motion is read by a reader; give reader 2 and reads_text"
        )
    if crop is not None and side_of(side).whole:
        raise UserError(f"video.learn_motion: side channels {side!r} are of whole clips; leave out crop")
    if (denoiser.space == "pixels") != (autoencoder is None):
        raise UserError(
            f"video.learn_motion: the denoiser works in {denoiser.space!r}; give its autoencoder if that is not "
            "pixels, and none if it is"
        )
    return MotionObjective(
        denoiser, conditioner, autoencoder, start, tuned=tuple(tuned), convolution=convolution,
        attention=attention, position=position, window=window, causal=causal, reads_text=reads_text,
        frame_words=frame_words, crop=crop, follows=follows, reader=reader, named=named, frames=frames,
        correlation=correlation, images=images, side=side, drop=drop, focus=focus, apart=apart,
    )  # fmt: skip
