"""The standard Inception network, with random weights in the real layout, against torch-fidelity's; resizing."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import save_file

from mezzotint import Image, Recipe, Source, UserError
from mezzotint.testing import fake_context
from mezzotint_metrics.inception import inception_features, load_inception, resized_clean, resized_tensorflow
from mezzotint_metrics.inception_network import Inception

STORED = json.loads(Path(__file__).with_name("torch_fidelity_inception.json").read_text("utf-8"))


def random_weights() -> dict[str, torch.Tensor]:
    """Weights of a size that keeps numbers alive; from NumPy's old generator, whose stream never changes."""
    numbers = np.random.RandomState(0)
    found = {}
    for name, tensor in Inception().state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var") or name.endswith("bn.weight"):
            made = numbers.uniform(0.5, 1.5, tensor.shape)
        else:
            size = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 4 else 0.1
            made = numbers.standard_normal(tensor.shape) * size
        found[name] = torch.from_numpy(made).float()
    return found


def pixels() -> torch.Tensor:
    """[2, 64, 48, 3] bytes."""
    return torch.from_numpy(np.random.RandomState(1).randint(0, 256, (2, 64, 48, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file(random_weights(), path)
    return Source("inception.safetensors", str(path), "0123456789abcdef")


@pytest.fixture(scope="module")
def network(weights):
    return load_inception(Recipe(source=weights, loader="metrics.inception"), fake_context())


@pytest.fixture
def seen(network, weights):
    def seen(image, **options):
        ctx = fake_context(loaders={"metrics.inception": lambda recipe, ctx: network})
        return inception_features(ctx, Image(image), source=weights, **options)

    return seen


def test_features_and_logits_are_those_that_torch_fidelity_gave_for_the_same_weights_and_pixels(seen):
    got = seen(pixels().float() / 255, batch=1)
    features, logits = got.features.data.double(), got.logits.data.double()
    assert tuple(features.shape) == (2, 2048) and tuple(logits.shape) == (2, 1008)
    wanted = torch.tensor(STORED["features"], dtype=torch.float64)
    torch.testing.assert_close(features[:, :: STORED["every"]], wanted, atol=1e-4, rtol=1e-5)
    wanted = torch.tensor(STORED["logits"], dtype=torch.float64)
    torch.testing.assert_close(logits[:, :: STORED["every"]], wanted, atol=1e-4, rtol=1e-5)
    # Random weights tell two pictures of noise little apart; what tells them apart is right as well.
    apart = torch.tensor(STORED["features"], dtype=torch.float64).diff(dim=0)
    torch.testing.assert_close(features[:, :: STORED["every"]].diff(dim=0), apart, atol=1e-4, rtol=1e-2)


@pytest.mark.slow
def test_features_and_logits_are_torch_fidelitys_to_the_bit(seen, weights, tmp_path, monkeypatch):
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None:
        pytest.skip("torch-fidelity is in the extra `parity`")
    # Its top level imports torchvision, which the network does without.
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.save(random_weights(), tmp_path / "weights.pth")
    theirs = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(tmp_path / "weights.pth"))
    features, logits = theirs(pixels().movedim(-1, 1).contiguous())
    got = seen(pixels().float() / 255)
    assert torch.equal(got.features.data, features)
    assert torch.equal(got.logits.data, logits)


def test_a_picture_is_seen_as_the_bytes_of_its_file(seen):
    exact = pixels()[:1].float() / 255
    assert torch.equal(seen(exact + 0.4 / 255).features.data, seen(exact).features.data)


def test_grey_pictures_are_seen_as_three_equal_channels(seen):
    grey = torch.rand(1, 20, 20, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(seen(grey).features.data, seen(grey.expand(-1, -1, -1, 3)).features.data)


def test_features_of_two_ways_of_resizing_do_not_compare(seen):
    one, other = (seen(pixels().float() / 255, resize=how).features for how in ("tensorflow", "clean"))
    assert one.network != other.network and not torch.equal(one.data, other.data)


@pytest.mark.parametrize("size", [(64, 48), (299, 299), (400, 731)])
def test_clean_resizing_is_pillows_antialiased_bicubic_in_floats(size):
    data = torch.from_numpy(np.random.RandomState(2).randint(0, 256, size).astype(np.float32))
    theirs = np.array(Pillow.fromarray(data.numpy()).resize((299, 299), Pillow.Resampling.BICUBIC)).clip(0, 255)
    # Of 255: what float32 coefficients are worth.
    torch.testing.assert_close(resized_clean(data[None, None])[0, 0], torch.from_numpy(theirs), atol=1e-2, rtol=0)


def test_clean_resizing_takes_in_what_lies_between_and_the_other_does_not():
    stripes = torch.zeros(1, 1, 1196, 1196)
    stripes[..., ::4] = 255  # one column in four, which is one in each pixel of 299
    assert resized_tensorflow(stripes).min() == 255
    torch.testing.assert_close(resized_clean(stripes)[..., 20:-20].mean(), torch.tensor(63.75), atol=0.1, rtol=0)


@pytest.mark.parametrize("length", [2, 32, 64, 299, 600])
def test_the_other_puts_output_i_at_i_times_the_ratio_and_repeats_the_last(length):
    line = torch.from_numpy(np.random.RandomState(3).randint(0, 256, length).astype(np.float32))
    got = resized_tensorflow(line.expand(1, 1, length, length))[0, 0, 7]
    at = np.arange(299) * (length / 299)
    np.testing.assert_allclose(got, np.interp(at, np.arange(length), line), atol=0.05)


def test_a_file_of_another_network_is_refused_with_the_name_of_what_is_wrong(tmp_path):
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    recipe = Recipe(Source("other", str(tmp_path / "other.safetensors"), "0"), "metrics.inception")
    with pytest.raises(UserError, match=r"pt_inception-2015-12-05: \d+ tensors.*Conv2d_1a_3x3"):
        load_inception(recipe, fake_context())


def test_a_pickle_is_refused_with_what_to_do(tmp_path):
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "weights.pth")
    recipe = Recipe(Source("weights.pth", str(tmp_path / "weights.pth"), "0"), "metrics.inception")
    with pytest.raises(UserError, match=r"no safetensors file.*convert it once"):
        load_inception(recipe, fake_context())


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 8, 8, 4), (8, 8, 3)])
def test_what_is_no_picture_is_refused(shape, seen):
    with pytest.raises(UserError, match=r"wanted pictures \[B, H, W, 3\], got"):
        seen(torch.zeros(shape))
