"""`video.next_frames`: a clip out of its first frame, each next frame sampled by a motion model (VIDM)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Context, Denoiser, Latents, Noise, Registered, Sigmas, UserError, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["next_frames"]

WHERE = "video.next_frames"


@node("video.next_frames", device=True)
def next_frames(
    ctx: Context,
    denoiser: Denoiser,
    conditioning: Conditioning,
    latents: Latents,
    sigmas: Sigmas,
    noise: Noise,
    *,
    frames: Annotated[int, Field(ge=1, le=512)] = 8,
    seconds: Annotated[float, Field(gt=0, le=60)] = 1.0,
    sampler: Annotated[str, Field(min_length=1, max_length=100), Registered("samplers")] = "dpmpp_2m",
    options: dict[str, Any] | None = None,
    clip: Annotated[float, Field(gt=0)] | None = None,
) -> Latents:
    """Make a clip from its first frame, frame after frame: each is sampled from noise, told the frame before.

    Besides the words, the model is told the first frame, the one that it made last, the flow between the two, and
    the time of the frame that it makes.

    denoiser: a motion model that `video.learn_frames` trained, guided or not.
    conditioning: the words, which say what moves how; one for all clips, or one for each.
    latents: the first frames [B, C, H, W]; they come back as they are. One is the first frame of all clips.
    sigmas: the levels that each frame visits, noisiest first.
    noise: where each frame starts from; frames independent, or shared for the same numbers in all.
    frames: of the clip, the first among them.
    seconds: from the first frame to the last; a model makes what it has seen in training, one second of the small
        world.
    sampler: as in sampling.sample.
    options: the sampler's own, by name.
    clip: bounds the change between two frames to -clip..clip at every step, in the units that the model was
        trained in: a truncation of the space that is sampled.

    returns: [B, C, F, H, W] float32. The run is saved after each frame and goes on from there, bit for bit.
    Raises: UserError: a denoiser that is no motion model, latents that are a clip already, have a mask or do not
        fit, no words, noise whose frames are mixed or that comes from a generator.
    Source: Mei and Patel 2023, "VIDM: Video implicit diffusion models", section 3.
    """
    import torch

    from mezzotint_video.frame_predictor import ShownPast

    scale = _scale_of(denoiser)
    _check(conditioning, latents, noise)
    first = latents.data.to(device=ctx.device, dtype=torch.float32)
    if first.shape[0] == 1:
        first = first.expand(len(conditioning.context), -1, -1, -1)
    run = _Run(ctx, sampler, conditioning, sigmas, options or {}, clip, latents.space, frames)
    run.check(denoiser, latents.replace(data=first))
    saved = ctx.resume()
    made = [first] if saved is None else list(saved["frames"].to(ctx.device).unbind(2))
    if len(made) < frames:
        # Innermost, so that both sides of guidance are shown the same past.
        run.predictor = ctx.realise(denoiser.replace(patches=(ShownPast(), *denoiser.patches)))
    for number in range(len(made), frames):
        run.predictor.show_past(_past(made, number, seconds / (frames - 1)))
        made.append(made[-1] + scale * run.frame(number, tuple(first.shape), _noise(noise, number)))
        ctx.save_state({"frames": torch.stack([frame.cpu() for frame in made], dim=2)})
        ctx.check_cancelled()
    return latents.replace(data=torch.stack(made, dim=2))


class _Run:
    """What all frames of one clip have in common."""

    def __init__(
        self, ctx: Context, sampler: str, conditioning: Conditioning, sigmas: Sigmas, options: dict[str, Any],
        clip: float | None, space: str, frames: int,
    ) -> None:  # fmt: skip
        self.ctx, self.conditioning, self.sigmas, self.options = ctx, conditioning, sigmas, options
        self.sampler, self.clip, self.space, self.frames = sampler, clip, space, frames
        self.predictor: Any = None

    def check(self, denoiser: Denoiser, latents: Latents) -> None:
        """Raises: UserError: inputs that do not go together, before anything is loaded."""
        from mezzotint_sampling import check_sampling

        check_sampling(self.ctx, self.sampler, denoiser, self.conditioning, latents, self.sigmas, self.options)

    def frame(self, number: int, shape: tuple[int, ...], noise: Noise) -> Tensor:
        """One frame [B, C, H, W], from noise."""
        from mezzotint_sampling import sample_from_noise

        def report(done: int, total: int, preview: Any) -> None:
            self.ctx.progress((number - 1) * total + done, (self.frames - 1) * total, preview)

        return sample_from_noise(
            self.ctx, self.sampler, self.predictor, self.conditioning, shape, self.sigmas, noise,
            options=self.options, clip=self.clip, space=self.space, report=report,
        )  # fmt: skip


def _past(made: list[Tensor], number: int, step: float) -> Any:
    import torch

    from mezzotint_video.frame_told import PastFrames

    rows = made[0].shape[0]
    time, step_of = (torch.full((rows,), value, device=made[0].device) for value in (number * step, step))
    return PastFrames(made[0], made[-1], time, step_of)


def _noise(noise: Noise, number: int) -> Noise:
    """That of one frame: a stream of its own, unless all frames share theirs."""
    if noise.frames == "shared":
        return noise.replace(frames="independent")
    return noise.replace(stream=f"{noise.stream or 'video.next_frames'}/{number}")


def _scale_of(denoiser: Denoiser) -> float:
    """What the model's changes are to be multiplied by. Raises: UserError: it is no motion model."""
    from mezzotint_models import meta_of

    record = meta_of(denoiser).get("denoiser", {}) if denoiser.loader == "models.network" else {}
    said = record.get("frames")
    scale = said.get("scale") if isinstance(said, Mapping) else None
    if not isinstance(scale, int | float) or not 0 < scale < 1e6:
        raise UserError(
            f"{WHERE}: wanted a motion model, which video.learn_frames trains, got {denoiser.source.uri}"
        )
    return float(scale)


def _check(conditioning: Conditioning, latents: Latents, noise: Noise) -> None:
    if latents.data.ndim != 4:
        raise UserError(
            f"{WHERE}: wanted first frames [B, C, H, W], got latents {list(latents.data.shape)}; of a clip take "
            "one frame"
        )
    if latents.mask is not None:
        raise UserError(f"{WHERE}: the first frame stays as it is and the others are new; leave the mask out")
    if conditioning.context is None:
        raise UserError(f"{WHERE}: wanted words, which say what moves; got a conditioning without context")
    if noise.kind == "torch" or noise.frames not in ("independent", "shared"):
        raise UserError(
            f"{WHERE}: frames are sampled one by one, from noise of the kind philox or brownian, independent or "
            f"shared; got {noise.kind}, {noise.frames}"
        )
