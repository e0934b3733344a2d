"""A checkpoint of Stable Diffusion 1.5's shape takes every temporal layer, and is itself to the bit at first."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_unets import sd15_unet

from mezzotint import Autoencoder, Conditioning, Dataset, Denoiser, NoiseLevel, NoiseSchedule, Source
from mezzotint.testing import fake_context
from mezzotint_models import pack_network, read_json
from mezzotint_training import Conditioner, Conditions
from mezzotint_training.train_node import train
from mezzotint_video.dynamic_text import words_over_time
from mezzotint_video.inflate import inflate
from mezzotint_video.motion_objective import learn_motion
from mezzotint_video.places import attention_places, residual_places
from mezzotint_video.sparse_causal import sparse_causal
from mezzotint_video.temporal_layers import TemporalLayers

pytestmark = pytest.mark.usefixtures("networks_are_known", "quick_charts")
LEVEL = NoiseLevel(0.6, 0.8, 500.0)
X = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
TOLD, OTHER = (
    Conditioning(context=torch.randn(2, 6, 24, generator=torch.Generator().manual_seed(seed))) for seed in (4, 5)
)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    """Of a checkpoint's folder, as models.checkpoint describes it; its U-Net alone is there."""
    folder = tmp_path_factory.mktemp("stable-diffusion")
    sd15_unet().save_pretrained(folder / "unet")
    model = read_json(folder / "unet" / "config.json")
    return Denoiser(
        Source("sd", str(folder), "0"), loader="models.unet", schedule=NoiseSchedule(), sample_size=8, downscale=2,
        config={"layout": "folder", "dtype": "auto", "model": model}, space="sd",
    )  # fmt: skip


def predicted(denoiser: Denoiser, told: Conditioning = TOLD, x: torch.Tensor = X) -> torch.Tensor:
    ctx = fake_context()
    model = ctx.realise(denoiser.replace(patches=()))
    with ExitStack() as stack, torch.no_grad():
        for patch in denoiser.patches:
            model = stack.enter_context(patch.apply(model, ctx))
        found: torch.Tensor = model.predict(x, LEVEL, told).combined()
    return found


@pytest.fixture(scope="module")
def plain(denoiser: Denoiser) -> torch.Tensor:
    return predicted(denoiser)


@cache
def places() -> dict[str, Any]:
    network = sd15_unet()
    return {"convolutions": residual_places(network), "attentions": attention_places(network)}


def new_layers(**changes: Any) -> TemporalLayers:
    torch.manual_seed(1)
    return TemporalLayers(**{**places(), "context": 24, "embedding": ["time_embedding", 128], **changes})


KINDS: dict[str, dict[str, Any]] = {
    "convolution": {"attentions": []},
    "attention": {"convolutions": []},
    "window": {"window": 3, "position": "sinusoidal"},
    "causal": {"causal": True, "position": "rotary"},
    "words": {"words": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_new_layers_of_every_kind_leave_each_frame_as_it_is_to_the_bit(
    kind: str, denoiser: Denoiser, plain: torch.Tensor
) -> None:
    layers = new_layers(**KINDS[kind])
    inflated = inflate(denoiser, pack_network(layers, temporal_layers={}))
    assert torch.equal(predicted(inflated), plain)


def test_sparse_causal_attention_is_that_of_pictures_for_the_first_frame_and_for_still_clips(
    denoiser: Denoiser, plain: torch.Tensor
) -> None:
    causal = sparse_causal(denoiser)
    found = predicted(causal)
    torch.testing.assert_close(found[:, :, 0], plain[:, :, 0], atol=1e-5, rtol=0)
    assert (found[:, :, 1:] - plain[:, :, 1:]).abs().amax() > 1e-4
    assert torch.equal(predicted(causal, x=X[:, :, :1]), predicted(denoiser, x=X[:, :, :1]))


def test_words_over_time_tell_each_frame_its_own(denoiser: Denoiser, plain: torch.Tensor) -> None:
    inflated = inflate(denoiser, pack_network(new_layers(), temporal_layers={}))
    told = words_over_time([TOLD, OTHER], frames=3, places=[1, 2])
    found, other = predicted(inflated, told), predicted(denoiser, OTHER)
    torch.testing.assert_close(found[:, :, :2], plain[:, :, :2], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, :, 2], other[:, :, 2], atol=1e-6, rtol=0)
    assert (plain - other).abs().amax() > 1e-3, "words that say nothing would prove nothing"


class Halves:
    """Latents are means of 2x2 pixels in -1..1, and a fourth channel of zeros."""

    def __init__(self, recipe: Any, ctx: Any) -> None: ...

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1) * 2 - 1, 2)
        return torch.cat([small, torch.zeros_like(small[:, :1])], 1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(latents[:, :3] / 2 + 0.5, scale_factor=2).movedim(1, -1)


class Noises:
    """Ten clips of three frames of noise, 16 pixels across."""

    def __init__(self, dataset: Any, ctx: Any) -> None: ...

    def __len__(self) -> int:
        return 10

    def __getitem__(self, item: int) -> dict[str, Any]:
        return {"clip": np.random.default_rng(item).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8), "fps": 3.0}


class Told(Conditions):
    def read(self, items: Sequence[Any]) -> dict[str, torch.Tensor]:
        return {"words": TOLD.context[:1].expand(len(items), 6, 24)}

    def __call__(self, rows: Any, dropped: torch.Tensor) -> Conditioning:
        return Conditioning(context=rows["words"])


class Tells(Conditioner):
    def open(self, ctx: Any, reader: Any, seed: int) -> Told:
        return Told()


def test_layers_are_trained_beside_it_and_let_its_frames_see_each_other(
    denoiser: Denoiser, plain: torch.Tensor
) -> None:
    ctx = fake_context(previews=False, loaders={"test.halves": Halves, "test.noises": Noises})
    encoder = Autoencoder(Source("test", "", "0"), loader="test.halves", channels=4, downscale=2, space="sd")
    trained = train(
        ctx, learn_motion(denoiser, Tells(), encoder, tuned=[], frame_words=1), Dataset("test.noises", {}, 10),
        steps=2, batch=2, report_every=1, validate_every=0, warm_up=0, cool_down=0.0, ema=0.0, learning_rate=1e-2,
    )  # fmt: skip
    inflated = inflate(denoiser, trained.weights)
    assert len(inflated.patches) == 1, "no layer of pictures was tuned"
    found = predicted(inflated)
    assert (found - plain).abs().amax() > 1e-3
    moved = X.clone()
    moved[:, :, 2] += 1
    assert (predicted(inflated, x=moved) - found)[:, :, 0].abs().amax() > 1e-4
    assert torch.equal(predicted(inflated, x=X[:, :, :1]), predicted(denoiser, x=X[:, :, :1]))
