"""Tune-A-Video: which frames a frame looks at, what is tuned, and that a still clip stays what it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny_unets import unet

from mezzotint import AttentionCall, AttentionSite, Conditioning, NoiseLevel, NoiseSchedule, UserError, Video
from mezzotint.testing import denoiser, fake_context
from mezzotint_attention.shared import share
from mezzotint_models import register_network
from mezzotint_models.unet import UNetPredictor
from mezzotint_training.conditioner import Conditioner, Conditions
from mezzotint_video.one_shot import OneShotObjective, tune_on_clip
from mezzotint_video.one_shot_task import OneClip, OneShotTask
from mezzotint_video.sparse_causal import SparseCausal, causal_table, sparse_causal, through

LEVEL = NoiseLevel(0.6, 0.8, 500.0)
SCHEDULE = NoiseSchedule(prediction="v")
SITE = AttentionSite("layer", "self", "down", 0, 2, 4)
TOLD = Conditioning(context=torch.randn(1, 6, 12, generator=torch.Generator().manual_seed(5)))


def call(frames: int, rows: int = 1) -> AttentionCall:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(rows * frames, 2, 9, 4, generator=generator) for _ in range(3))
    return AttentionCall(SITE, query, key, value, LEVEL)


def predicted(x: torch.Tensor, *, causal: bool) -> torch.Tensor:
    model: Any = UNetPredictor(unet(), SCHEDULE)
    if not causal:
        return model.predict(x, LEVEL, TOLD).combined()
    with SparseCausal().apply(model, fake_context()) as clips:
        return clips.predict(x, LEVEL, TOLD).combined()


def test_each_frame_looks_at_the_first_and_the_one_before_it_and_never_at_another_clip() -> None:
    table, counts = causal_table(2, 4)
    named = [sorted({int(n) for n in row if n >= 0}) for row in table]
    assert named == [[0], [0], [0, 1], [0, 2], [4], [4], [4, 5], [4, 6]]
    assert counts[0].max() == pytest.approx(torch.tensor(2.0).log().item())


def test_it_is_attention_over_the_two_frames_side_by_side() -> None:
    given = call(4, rows=2)
    made = through(given, 2, 4)
    for clip in range(2):
        for frame in range(4):
            seen = [clip * 4, clip * 4 + max(frame - 1, 0)]
            key, value = (torch.cat([part[n] for n in seen], dim=1).double() for part in (given.key, given.value))
            query = given.query[clip * 4 + frame].double()
            wanted = (query @ key.transpose(1, 2) / 2).softmax(-1) @ value
            assert torch.allclose(made[clip * 4 + frame].double(), wanted, atol=1e-5)


@pytest.mark.parametrize(("moved", "touched"), [(0, [0, 1, 2, 3, 4]), (2, [3]), (4, [])])
def test_keys_of_a_frame_reach_the_next_frame_and_those_of_the_first_reach_all(
    moved: int, touched: list[int]
) -> None:
    given = call(5)
    changed = given.key.clone()
    changed[moved] += torch.randn(given.key.shape[1:], generator=torch.Generator().manual_seed(2))
    other = AttentionCall(SITE, given.query, changed, given.value, LEVEL)
    moves = (through(other, 1, 5) - through(given, 1, 5)).flatten(1).abs().amax(1)
    assert [frame for frame in range(5) if moves[frame] > 1e-6] == touched


def test_a_clip_that_stands_still_and_a_picture_come_out_as_the_model_of_pictures_makes_them() -> None:
    picture = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(predicted(picture, causal=True), predicted(picture, causal=False))
    still = picture.expand(2, 4, 5, 8, 8)
    assert torch.allclose(predicted(still, causal=True), predicted(still, causal=False), atol=1e-5)


def test_the_first_frame_is_the_model_of_pictures_own_and_the_others_are_not() -> None:
    clip = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    made, plain = predicted(clip, causal=True), predicted(clip, causal=False)
    assert torch.allclose(made[:, :, 0], plain[:, :, 0], atol=1e-5)
    assert (made[:, :, 1:] - plain[:, :, 1:]).abs().amax() > 1e-3


def test_another_injector_for_the_same_maps_is_refused() -> None:
    model: Any = UNetPredictor(unet(), SCHEDULE)
    both = sparse_causal(share(denoiser())).patches
    with both[0].apply(model, fake_context()) as inner, pytest.raises(UserError, match="both decide"):
        both[1].apply(inner, fake_context()).__enter__()


def test_layers_that_are_no_self_attention_are_refused() -> None:
    given = call(4)
    crossed = AttentionCall(SITE, given.query, given.key[:, :, :3], given.value[:, :, :3], LEVEL)
    with pytest.raises(UserError, match=r"works at self-attention.*'layer'"):
        through(crossed, 1, 4)


class Told(Conditions):
    def read(self, items: Sequence[Any]) -> dict[str, torch.Tensor]:
        return {"words": TOLD.context.expand(len(items), 6, 12)}

    def __call__(self, rows: Any, dropped: torch.Tensor) -> Conditioning:
        return Conditioning(context=rows["words"])


class Tells(Conditioner):
    def open(self, ctx: Any, reader: Any, seed: int) -> Told:
        return Told()


def pixels(frames: int = 4, clips: int = 1, side: int = 8) -> Video:
    shape = (clips, frames, side, side, 3)
    return Video(torch.rand(shape, generator=torch.Generator().manual_seed(6)), fps=8.0)


def of_pixels() -> Any:
    return denoiser().replace(space="pixels", channels=4, sample_size=8, downscale=1, schedule=SCHEDULE)


class OneTask(OneShotTask):
    def prepare(self, levels: torch.Tensor, item: Any) -> dict[str, torch.Tensor]:
        grey = levels.float().permute(0, 3, 1, 2) / 127.5 - 1
        rows = {"latents": torch.cat([grey, grey[:, :1]], dim=1)[None], "fps": torch.tensor([8.0])}
        return {**rows, **self.conditions.read([item])}


def task_of() -> tuple[OneTask, UNet2DConditionModel]:
    network = unet()
    made = tune_on_clip(of_pixels(), Tells(), pixels(), caption="a clip")
    assert isinstance(made, OneShotObjective)
    torch.manual_seed(0)
    return OneTask(made, fake_context(), OneClip(made.video, made.caption), network, 0, 2), network


def test_tuning_lowers_the_loss_and_moves_queries_and_temporal_attention_alone() -> None:
    task, network = task_of()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learning = [value for value in task.network.parameters() if value.requires_grad]
    optimiser = torch.optim.Adam(learning, 3e-3)
    for step in range(40):
        generator = torch.Generator().manual_seed(step)
        optimiser.zero_grad()
        task.loss(task.batch(step, 0), "motion", generator)[0].backward()
        optimiser.step()
    figures = task.validate(torch.Generator())
    assert figures["loss"] < 0.97 * figures["loss_at_first"]
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    wanted = {name for name in before if "attn1.to_q" in name or "attn2.to_q" in name}
    assert moved == wanted and wanted
    register_network("video.temporal_layers", "mezzotint_video.temporal_layers:TemporalLayers")
    parts = task.weights()
    assert set(parts["tuned"].tensors) == wanted
    assert all(name.startswith("attentions.") for name in parts["temporal_layers"].tensors)


def test_the_network_that_is_tuned_is_the_one_that_samples() -> None:
    task, _ = task_of()
    x = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    rows = task.held(1)
    told, clip = task.told(rows, torch.zeros(1, dtype=torch.bool), torch.Generator())
    with torch.no_grad():
        tuned = task.network(x, torch.tensor([500]), told, clip)
    sampled = predicted(x.transpose(1, 2), causal=True).transpose(1, 2)
    assert torch.allclose(tuned, sampled, atol=1e-5)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (pixels(1), "two frames at least, got 1 of 1"),
        (pixels(3, clips=2), "wanted one clip"),
        (pixels(3, side=10), r"\[1, F, 8, 8, 3\], got \[1, 3, 10, 10, 3\]"),
    ],
)
def test_clips_that_cannot_be_learnt_from_are_refused(video: Video, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tune_on_clip(of_pixels(), Tells(), video, caption="a clip")


def test_a_guided_denoiser_and_a_missing_autoencoder_are_refused() -> None:
    with pytest.raises(UserError, match="got one with patches"):
        tune_on_clip(sparse_causal(of_pixels()), Tells(), pixels(), caption="a clip")
    with pytest.raises(UserError, match="give its autoencoder"):
        tune_on_clip(of_pixels().replace(space="latent"), Tells(), pixels(), caption="a clip")
