"""PVDM through its nodes: both trainings, clips to planes and back, one clip after another, the bundled model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import Autoencoder, Conditioning, Latents, Noise, Source, UserError, Video, Weights
from mezzotint.testing import check_node, fake_context
from mezzotint_models import build_network, part_of
from mezzotint_models.architecture import unet
from mezzotint_models.denoiser import denoiser
from mezzotint_sampling.nodes import sigmas
from mezzotint_sampling.sampler_node import sample
from mezzotint_smallworld import resolve_source
from mezzotint_smallworld.motion_nodes import clip_dataset, clips
from mezzotint_training.train_node import train
from mezzotint_video.triplane_figures import check_planes, seams
from mezzotint_video.triplane_nodes import (
    continue_clip,
    decode_planes,
    empty_planes,
    encode_planes,
    plane_autoencoder,
)
from mezzotint_video.triplane_training import learn_plane_diffusion, learn_planes, plane_denoiser

SMALL = {"steps": 2, "batch": 2, "report_every": 1, "validate_every": 2}
TINY = {
    "frames": 3, "size": 16, "patch": 4, "channels": 2, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1,
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("networks_are_known", "quick_charts")


def trained(objective: Any, frames: int = 6, **more: Any) -> Any:
    world = clip_dataset(count=12, frames=frames, things=1)
    return train(fake_context(previews=False), objective, world, **{**SMALL, **more})


@pytest.fixture(scope="module")
def first_stage() -> Weights:
    return trained(learn_planes(**TINY)).weights


@pytest.fixture(scope="module")
def planes(first_stage: Weights) -> Autoencoder:
    return plane_autoencoder(first_stage)


@pytest.fixture(scope="module")
def diffusion(planes: Autoencoder) -> Weights:
    made = plane_denoiser(planes, frames=3, side=4, width=16, blocks=1, heads=2)
    weights = trained(learn_plane_diffusion(made, planes, previous=0.5), steps=3).weights
    # The output begins at zero; as if much longer had been trained.
    torch.manual_seed(0)
    return weights.replace(tensors={name: t + 0.1 * torch.randn_like(t) for name, t in weights.tensors.items()})


def film(frames: int = 3, count: int = 2) -> Video:
    return clips(count=count, frames=frames, things=1)[0]


def latents(planes: Autoencoder, count: int = 2) -> Latents:
    return empty_planes(fake_context(), planes, count=count)


def test_training_measures_how_near_clips_come_back_and_says_which_space_it_made() -> None:
    made = trained(learn_planes(**TINY))
    assert {"psnr", "psnr_worst", "psnr_moving"} <= set(made.report.data["validation"][-1])
    record = made.weights.meta["planes"]
    assert record["channels"] == 2 and record["downscale"] == 4 and record["space"].startswith("planes:")
    codes = encode_planes(fake_context(), plane_autoencoder(made.weights), film(count=8)).data
    # Scaled, so that a denoiser sees numbers of the usual size; measured on the three held-out clips alone.
    assert 0.5 < codes.std() < 2


def test_clips_become_latents_of_the_size_that_planes_have(planes: Autoencoder) -> None:
    made = encode_planes(fake_context(), planes, film())
    assert made.data.shape == (2, 2, 4 + 2 * 3, 4) == latents(planes).data.shape
    assert made.space == planes.space and made.downscale == 4


def test_a_clip_longer_than_the_planes_is_made_of_several(planes: Autoencoder) -> None:
    codes = encode_planes(fake_context(), planes, film())
    other = codes.replace(data=codes.data.flip(0))
    one, two, both = (
        decode_planes(fake_context(), planes, parts, fps=6.0).data for parts in ([codes], [other], [codes, other])
    )
    assert both.shape == (2, 6, 16, 16, 3) and torch.equal(both, torch.cat([one, two], dim=1))
    assert decode_planes(fake_context(), planes, [codes], enlarge=2).data.shape == (2, 3, 32, 32, 3)


def run(planes: Autoencoder, weights: Weights, told: Conditioning) -> Latents:
    model = denoiser(weights)
    return sample(
        fake_context(),
        model,
        told,
        latents(planes),
        sigmas(model, steps=3),
        Noise(seed=1),
        sampler="ddim",
        eta=1.0,
    )


def test_any_sampler_makes_planes_and_a_clip_after_nothing_is_one_after_zeros(
    planes: Autoencoder, diffusion: Weights
) -> None:
    first = run(planes, diffusion, Conditioning())
    assert first.data.abs().max() > 0 and first.space == planes.space
    assert torch.equal(first.data, run(planes, diffusion, continue_clip(Conditioning(), latents(planes))).data)


def test_the_loop_over_clips_is_the_same_every_time_and_hears_the_clip_before(
    planes: Autoencoder, diffusion: Weights
) -> None:
    first = run(planes, diffusion, Conditioning())
    second = run(planes, diffusion, continue_clip(Conditioning(), first))
    again = run(planes, diffusion, continue_clip(Conditioning(), run(planes, diffusion, Conditioning())))
    assert torch.equal(second.data, again.data)
    assert not torch.allclose(second.data, first.data)


def test_a_share_of_the_clips_is_shown_the_clip_before_and_the_others_zeros(planes: Autoencoder) -> None:
    from mezzotint_smallworld.motion_reader import open_clips

    world = clip_dataset(count=12, frames=6, things=1)
    made = plane_denoiser(planes, frames=3, side=4, width=16, blocks=1, heads=2)
    seen: dict[float, tuple[Any, Any]] = {}
    for share in (0.0, 1.0):
        task = learn_plane_diffusion(made, planes, previous=share).open(
            fake_context(), open_clips(world, None), 0, 4
        )
        task.network.register_forward_hook(lambda *call, share=share: seen.update({share: call[1]}))
        rows = task.batch(0, 0)
        task.loss(rows, "denoiser", torch.Generator().manual_seed(0))
        before = seen[share][2].concat
        assert torch.equal(before, rows["first"] if share else torch.zeros_like(before))


def test_the_parts_of_a_clip_that_was_cut_are_told_by_its_seams() -> None:
    still = torch.rand(1, 1, 4, 4, 3, generator=torch.Generator().manual_seed(0)).expand(2, 8, 4, 4, 3)
    drift = still + torch.arange(8).view(1, 8, 1, 1, 1) * 0.01
    assert seams(Video(drift, 8.0), length=4).data["ratio"] == pytest.approx(1, abs=1e-3)
    jump = drift + (torch.arange(8) >= 4).view(1, 8, 1, 1, 1) * 0.03
    assert seams(Video(jump, 8.0), length=4).data["ratio"] == pytest.approx(4, abs=1e-2)


def test_figures_count_the_planes_and_find_the_sum(planes: Autoencoder) -> None:
    found = check_planes(fake_context(), planes, film()).data
    assert (found["numbers"], found["numbers_dense"]) == (2 * 40, 2 * 48)
    assert found["third_difference"] < 1e-4 and len(found["clips"]) == 2


def bundled() -> Autoencoder:
    path = resolve_source("bundled:pvdm_autoencoder")
    return plane_autoencoder(source=Source("bundled:pvdm_autoencoder", str(path), "0"))


def test_the_bundled_autoencoder_gives_clips_back_that_it_never_saw() -> None:
    held_out = clips(count=6, frames=8, things=1, motions=["left", "right", "up", "down"], split="test", seed=50)[
        0
    ]
    found = check_planes(fake_context(), bundled(), held_out).data
    # methods.md asks for 25 decibels; a clip's mean picture in place of all its frames has far less.
    assert found["psnr"] > 25 and found["psnr"] > found["psnr_mean_frame"] + 3
    assert (found["numbers"], found["numbers_dense"]) == (8 * 192, 8 * 512)


def test_nodes_keep_every_node_s_promises(first_stage: Weights, planes: Autoencoder) -> None:
    codes = encode_planes(fake_context(), planes, film())
    check_node(plane_autoencoder, weights=first_stage)
    check_node(encode_planes, autoencoder=planes, video=film())
    check_node(decode_planes, autoencoder=planes, clips=[codes])
    check_node(empty_planes, autoencoder=planes)
    check_node(continue_clip, conditioning=Conditioning(), latents=codes)
    check_node(check_planes, autoencoder=planes, video=film())
    check_node(seams, video=film(), length=2)
    check_node(learn_planes)
    check_node(plane_denoiser, autoencoder=planes, width=16)
    check_node(learn_plane_diffusion, architecture=plane_denoiser(planes, width=16), autoencoder=planes)


def test_what_does_not_fit_is_refused(planes: Autoencoder, first_stage: Weights) -> None:
    ctx, codes = fake_context(), latents(planes)
    with pytest.raises(UserError, match="3 frames of 16x16"):
        encode_planes(ctx, planes, film(frames=4))
    with pytest.raises(UserError, match="got 3 of 48x64"):
        encode_planes(ctx, planes, film().replace(data=film().data[:, :, :, :48]))
    with pytest.raises(UserError, match="different models"):
        decode_planes(ctx, planes, [codes.replace(space="planes:other")])
    with pytest.raises(UserError, match=r"wanted latents \[2, 2, 10, 4\]"):
        decode_planes(ctx, planes, [codes, codes.replace(data=codes.data[:1])])
    with pytest.raises(UserError, match="already"):
        continue_clip(continue_clip(Conditioning(), codes), codes)
    with pytest.raises(UserError, match="for 3 clips"):
        continue_clip(Conditioning(context=torch.zeros(3, 2, 4)), codes)
    with pytest.raises(UserError, match="either weights"):
        plane_autoencoder()
    with pytest.raises(UserError, match="'planes' is damaged"):
        plane_autoencoder(first_stage.replace(meta={**first_stage.meta, "planes": {"channels": 2}}))
    with pytest.raises(UserError, match="longer than a piece"):
        seams(film(), length=3)
    with pytest.raises(UserError, match="multiple of patch"):
        learn_planes(size=30)
    with pytest.raises(UserError, match="multiple of 8"):
        plane_denoiser(planes, width=20)
    with pytest.raises(UserError, match=r"of video\.plane_denoiser, got mezzotint\.unet"):
        learn_plane_diffusion(unet(), planes)
    made = plane_denoiser(planes, frames=3, side=4, width=16)
    with pytest.raises(UserError, match="give both nodes the same"):
        learn_plane_diffusion(made, planes.replace(space="planes:other"))
    with pytest.raises(UserError, match="wants clips of 6; got 4"):
        trained(learn_plane_diffusion(made, planes), frames=4)
    with pytest.raises(UserError, match="of 3 frames, and a clip has 2"):
        trained(learn_planes(**TINY), frames=2)
    with pytest.raises(UserError, match="multiple of 48"):
        trained(learn_planes(**{**TINY, "size": 48}))


def test_the_denoiser_of_a_file_is_the_one_that_was_trained(diffusion: Weights) -> None:
    made = build_network(part_of(diffusion, "denoiser"))
    assert made.config["frames"] == 3 and made.config["previous"]
