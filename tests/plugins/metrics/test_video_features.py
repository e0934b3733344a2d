"""Features of clips: networks of any kind, the bundled one, I3D against pytorch-i3d; and the distance in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import linalg

import mezzotint_smallworld
from mezzotint import ImageEncoder, Recipe, Source, UserError, Video
from mezzotint.testing import check_node, fake_context
from mezzotint_metrics import register_nodes
from mezzotint_metrics.clip_classifier import ClipClassifier
from mezzotint_metrics.features import Features
from mezzotint_metrics.frechet import fid, fvd
from mezzotint_metrics.i3d_network import I3D, padded
from mezzotint_metrics.score import inception_score, score_of
from mezzotint_metrics.statistics import statistics
from mezzotint_metrics.video_features import (
    frame_features,
    i3d_features,
    load_clip_network,
    load_i3d,
    video_features,
)
from mezzotint_models import pack_network
from mezzotint_smallworld.motion_nodes import clips

register_nodes(lambda node: None)  # which also makes its network known

STORED = json.loads(Path(__file__).with_name("pytorch_i3d.json").read_text("utf-8"))
HEADS = {"motion": ["left", "right"], "shape": ["circle", "star", "ring"]}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Means:
    """A picture encoder: the mean of each channel."""

    nbytes = 0

    @staticmethod
    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(1, 2))


def encoder() -> ImageEncoder:
    return ImageEncoder(Source("means", "", "0123456789abcdef"), "test.means")


def context():
    loaders = {"test.means": lambda recipe, ctx: Means(), "metrics.clip_network": load_clip_network}
    return fake_context(loaders=loaders)


# --- any picture encoder ---


def test_frames_features_are_the_mean_embedding_and_the_mean_change_of_any_encoder():
    video = Video(noise(3, 5, 4, 4, 3), 5.0)
    got = check_node(frame_features, ctx=context(), encoder=encoder(), video=video, batch=4)["features"]
    means = video.data.mean(dim=(2, 3))
    wanted = torch.cat((means.mean(1), (means[:, 1:] - means[:, :-1]).abs().mean(1)), 1)
    torch.testing.assert_close(got.data, wanted)
    assert "means" in got.network


# --- the small network ---


def small() -> ClipClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ClipClassifier(heads=HEADS, frames=4, size=8, channels=[8, 8], width=8, hidden=8).eval()


def weights():
    return pack_network(small(), clip_classifier={"classes": HEADS})


def test_clip_features_are_the_networks_last_hidden_layer_and_the_logits_of_the_head_that_is_asked_for():
    video = Video(noise(3, 4, 8, 8, 3), 4.0)
    got = check_node(video_features, ctx=context(), video=video, weights=weights(), head="shape", batch=2)
    with torch.no_grad():
        wanted = small()(video.data.movedim(-1, 2) * 2 - 1)
    torch.testing.assert_close(got["features"].data, wanted.features)
    torch.testing.assert_close(got["logits"].data, wanted.logits["shape"])
    assert video_features(context(), video, weights()).logits.data.shape == (3, 2), "of motion"


def test_the_logits_of_all_heads_make_the_product_of_their_probabilities():
    video = Video(noise(2, 4, 8, 8, 3), 4.0)
    got = video_features(context(), video, weights(), head="all").logits.data.softmax(1)
    with torch.no_grad():
        motion, shape = (head.softmax(1) for head in small()(video.data.movedim(-1, 2) * 2 - 1).logits.values())
    torch.testing.assert_close(got, torch.einsum("bm,bs->bms", motion, shape).flatten(1))


def test_of_a_longer_clip_frames_are_read_evenly_from_the_first_to_the_last():
    long = Video(noise(2, 10, 8, 8, 3), 10.0)
    picked = Video(long.data[:, [0, 3, 6, 9]], 4.0)
    seen = [video_features(context(), video, weights()).features.data for video in (long, picked)]
    assert torch.equal(*seen)


def test_the_small_network_tells_a_clip_from_the_same_frames_in_another_order():
    clip = noise(1, 4, 3, 8, 8)
    with torch.no_grad():
        there, back = small()(clip).features, small()(clip.flip(1)).features
    assert (there - back).abs().max() > 1e-3


def test_a_network_that_is_no_classifier_of_clips_is_refused():
    other = weights().replace(meta={**weights().meta, "clip_classifier": None})
    with pytest.raises(UserError, match="clip_classifier"):
        video_features(context(), Video(noise(1, 4, 8, 8, 3), 4.0), other)


# --- what ships ---


@pytest.fixture(scope="module")
def bundled():
    path = mezzotint_smallworld.resolve_source("bundled:video_features")
    return Source("bundled:video_features", str(path), "0123456789abcdef")


@pytest.fixture(scope="module")
def real():
    return clips(seed=900_000, count=48, things=1, split="test")


def test_the_bundled_network_names_motion_and_colour_of_combinations_it_never_saw(bundled, real):
    from mezzotint_smallworld.moving import MOTIONS, sample_moving_scene
    from mezzotint_smallworld.scene import COLOURS

    scenes = [sample_moving_scene(900_000 + i, things=1, split="test").things[0] for i in range(48)]
    names = {"motion": MOTIONS, "colour": tuple(COLOURS)}
    wanted = {
        "motion": [one.motion for one in scenes],
        "colour": [one.thing.colour for one in scenes],
    }
    for head, known in names.items():
        logits = video_features(context(), real.video, source=bundled, head=head).logits.data
        right = [known[int(i)] == name for i, name in zip(logits.argmax(1), wanted[head], strict=True)]
        assert sum(right) / 48 > 0.75, head


def test_frames_in_another_order_are_far_off_in_fvd_and_not_by_what_frames_show(bundled, real):
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    video, other = real.video, clips(seed=950_000, count=48, things=1, split="test").video
    shuffled = Video(video.data[:, order], 8.0)

    def distance(one: Video, two: Video) -> float:
        seen = [video_features(context(), each, source=bundled).features for each in (one, two)]
        return fvd(statistics([seen[0]]), statistics([seen[1]])).data["fvd"]

    assert distance(other, shuffled) > 1.5 * distance(other, video)
    frames = [frame_features(context(), encoder(), each).data[:, :3] for each in (video, shuffled)]
    torch.testing.assert_close(*frames)


def test_clips_that_all_stand_still_have_the_least_video_inception_score_and_moving_ones_a_high_one(bundled, real):
    still = Video(real.video.data[:, :1].expand(-1, 8, -1, -1, -1), 8.0)
    got = [
        score_of(video_features(context(), video, source=bundled, head="motion").logits.data.double())
        for video in (still, real.video)
    ]
    assert got[0] < 1.5 and got[1] > 5
    logits = video_features(context(), real.video, source=bundled, head="motion").logits
    report = inception_score(fake_context(), logits, splits=1).data
    assert report["classes"] == 11 and report["inception_score"] == pytest.approx(got[1])


# --- the distance ---


def correlated(count: int, width: int, seed: int, shift: float = 0.0) -> Features:
    numbers = np.random.default_rng(seed)
    return Features(
        torch.from_numpy(numbers.normal(size=(count, width)) @ numbers.normal(size=(width, width))) + shift
    )


@pytest.mark.parametrize("seed", range(3))
def test_fvd_is_that_of_a_reference_implementation_on_the_same_features(seed):
    real, generated = correlated(60, 12, seed), correlated(50, 12, seed + 10, shift=0.5)
    got = check_node(fvd, real=statistics([real]), generated=statistics([generated]))["report"].data
    a, b = real.data.numpy(), generated.data.numpy()
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(s @ t).real
    wanted = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s + t - 2 * root)
    assert got["fvd"] == pytest.approx(wanted, rel=1e-9)
    assert (got["real"], got["generated"], got["full_rank"]) == (60, 50, True)
    assert fid(statistics([real]), statistics([generated])).data["fid"] == got["fvd"], "one distance, two networks"


def test_fvd_of_two_networks_and_of_a_single_clip_are_refused():
    one, other = (statistics([Features(noise(4, 3), name)]) for name in ("I3D", "frames"))
    with pytest.raises(UserError, match=r"metrics\.fvd: features of 'I3D' and of 'frames'"):
        fvd(one, other)
    with pytest.raises(UserError, match="wanted at least 2 samples, got 1"):
        statistics([frame_features(context(), encoder(), Video(noise(1, 4, 8, 8, 3), 4.0))])


# --- I3D ---


def i3d_weights() -> dict[str, torch.Tensor]:
    """Weights of a size that keeps numbers alive; from NumPy's old generator, whose stream never changes."""
    numbers = np.random.RandomState(0)
    found = {}
    for name, tensor in I3D().state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith(("running_var", "bn.weight")):
            made = numbers.uniform(0.5, 1.5, tensor.shape)
        else:
            made = numbers.standard_normal(tensor.shape) * (
                (2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 5 else 0.1
            )
        found[name] = torch.from_numpy(made).float()
    return found


@pytest.fixture(scope="module")
def i3d(tmp_path_factory):
    path = tmp_path_factory.mktemp("i3d") / "i3d.safetensors"
    save_file(i3d_weights(), path)
    source = Source("i3d.safetensors", str(path), "0123456789abcdef")
    return source, load_i3d(Recipe(source=source, loader="metrics.i3d"), fake_context())


def test_i3ds_logits_are_those_that_pytorch_i3d_gave_for_the_same_weights_and_clip(i3d):
    source, network = i3d
    clip = torch.from_numpy(np.random.RandomState(1).uniform(-1, 1, (1, 3, 9, 224, 224))).float()
    ctx = fake_context(loaders={"metrics.i3d": lambda recipe, ctx: network})
    got = i3d_features(ctx, Video((clip.movedim(1, -1) + 1) / 2, 9.0), source=source)
    assert tuple(got.data.shape) == (1, 400)
    wanted = torch.tensor(STORED["logits"])
    torch.testing.assert_close(got.data[0, :: STORED["every"]], wanted, atol=1e-3, rtol=1e-4)


def test_i3d_has_the_published_number_of_weights():
    assert sum(p.numel() for p in I3D().parameters()) == 12_697_264


@pytest.mark.parametrize(
    ("length", "kernel", "stride"), [(9, 7, 2), (10, 7, 2), (5, 3, 2), (4, 3, 2), (6, 3, 1), (5, 2, 2)]
)
def test_borders_are_as_wide_as_the_strides_need_and_the_odd_zero_lies_behind(length, kernel, stride):
    got = padded(torch.ones(1, 1, length, 3, 3), (kernel, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
    before, behind = int(got.argmax()), len(got) - length - int(got.argmax())
    assert (len(got) - kernel) // stride + 1 == -(-length // stride)
    assert behind - before in (0, 1)


def test_i3d_reads_no_pickle_and_no_other_network(tmp_path):
    torch.save(i3d_weights(), tmp_path / "rgb_imagenet.pt")
    with pytest.raises(UserError, match=r"no safetensors file.*convert it once"):
        load_i3d(Recipe(Source("pt", str(tmp_path / "rgb_imagenet.pt"), "0"), "metrics.i3d"), fake_context())
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"of rgb_imagenet\.pt: \d+ tensors are missing.*Conv3d_1a_7x7"):
        load_i3d(Recipe(Source("o", str(tmp_path / "other.safetensors"), "0"), "metrics.i3d"), fake_context())


# --- what is no clip ---


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 16, 8, 8, 3), r"wanted clips \[B, F, H, W, 3\], got \[0, 16"),
        ((2, 0, 8, 8, 3), r"too short: wanted at least \d+ frames, got no frames"),
        ((2, 1, 8, 8, 3), r"too short: wanted at least \d+ frames, got 1 frame$"),
        ((2, 16, 8, 8, 4), r"wanted clips \[B, F, H, W, 3\], got"),
        ((16, 8, 8, 3), r"wanted clips \[B, F, H, W, 3\], got"),
    ],
)
def test_what_is_no_clip_or_too_short_a_one_is_refused(shape, message):
    video, source = Video(torch.zeros(shape), 8.0), Source("i3d", "/nowhere", "0")
    with pytest.raises(UserError, match=message):
        video_features(context(), video, weights())
    with pytest.raises(UserError, match=message):
        frame_features(context(), encoder(), video)
    with pytest.raises(UserError, match=message):
        i3d_features(context(), video, source=source)


def test_clips_too_short_too_small_or_a_head_that_is_not_there_are_refused():
    ctx = context()
    with pytest.raises(UserError, match="at least 9 frames, got 8 frames"):
        i3d_features(ctx, Video(torch.zeros(1, 8, 8, 8, 3), 8.0), source=Source("i3d", "/nowhere", "0"))
    with pytest.raises(UserError, match="at least 4 frames, got 3 frames"):
        video_features(ctx, Video(torch.zeros(1, 3, 8, 8, 3), 8.0), weights())
    with pytest.raises(UserError, match="at least 8 pixels"):
        video_features(ctx, Video(torch.zeros(1, 4, 7, 8, 3), 8.0), weights())
    with pytest.raises(UserError, match="wanted head motion, shape or all, got 'size'"):
        video_features(ctx, Video(torch.zeros(1, 4, 8, 8, 3), 8.0), weights(), head="size")
