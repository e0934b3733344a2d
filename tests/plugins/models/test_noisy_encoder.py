"""Networks that judge noisy samples: what they read, how they pool, and the nodes that load them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mezzotint import NoiseLevel, UserError
from mezzotint_models.classifiers import classifier
from mezzotint_models.image_encoders import image_encoder
from mezzotint_models.networks import build_network, pack_network
from mezzotint_models.noisy_encoder import AttentionPool, NoisyEncoder

LEVEL = NoiseLevel(0.6, 0.8, 321.5)


@pytest.fixture
def network() -> NoisyEncoder:
    torch.manual_seed(0)
    return NoisyEncoder(size=8, channels=(8, 16), head_channels=8, outputs=3).eval()


def test_the_answer_depends_on_the_time_and_each_row_on_its_own(network: NoisyEncoder) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    both = network(x, torch.tensor([10.0, 900.0]))
    assert both.shape == (2, 3)
    torch.testing.assert_close(both[1:], network(x[1:], torch.tensor([900.0])))
    assert not torch.allclose(both[1:], network(x[1:], torch.tensor([10.0])))


def test_the_pool_is_attention_of_the_mean_to_all_places() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(6, 4, 3, 5).double()
    x = torch.randn(1, 6, 2, 2, dtype=torch.float64)
    tokens = x[0].flatten(1).T
    tokens = torch.cat((tokens.mean(0, keepdim=True), tokens)) + pool.position_embedding
    query, pairs = pool.query(tokens[:1]), pool.key_value(tokens)
    heads = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        shares = (query[:, part] @ pairs[:, :6][:, part].T / 3**0.5).softmax(1)
        heads.append(shares @ pairs[:, 6:][:, part])
    torch.testing.assert_close(pool(x), pool.out(torch.cat(heads, 1)))


def test_a_classifier_comes_back_from_a_value_and_names_its_classes(network: NoisyEncoder, ctx: Any) -> None:
    weights = pack_network(network, classifier={"classes": ["a", "b", "c"], "noised": True})
    recipe = classifier(weights)
    assert recipe.classes == ("a", "b", "c")
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    made = ctx.realise(recipe)(x, LEVEL)
    torch.testing.assert_close(made, network(x, torch.tensor([321.5])))
    assert build_network(weights).config == network.config


def test_the_gradient_of_a_classifier_reaches_the_sample_and_not_the_weights(
    network: NoisyEncoder, ctx: Any
) -> None:
    model = ctx.realise(classifier(pack_network(network, classifier={"classes": ["a", "b", "c"]})))
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    model(x, LEVEL)[0, 1].backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_samples_of_another_size_are_refused(network: NoisyEncoder, ctx: Any) -> None:
    model = ctx.realise(classifier(pack_network(network, classifier={"classes": ["a", "b", "c"]})))
    with pytest.raises(UserError, match=r"reads \[B, 3, 8, 8\], got \[1, 3, 16, 16\]"):
        model(torch.zeros(1, 3, 16, 16), LEVEL)
    with pytest.raises(UserError, match="does not name its classes"):
        classifier(pack_network(network, classifier={"noised": True}))


def test_a_tower_for_noise_reads_clean_pictures_as_samples_without_noise(network: NoisyEncoder, ctx: Any) -> None:
    record = {"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "noised": True}
    tower = ctx.realise(image_encoder(pack_network(network, image_encoder=record)))
    pixels = torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(1))
    made = tower.embed(pixels)
    torch.testing.assert_close(made.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(made, tower.embed_noisy(pixels.movedim(-1, 1) * 2 - 1, NoiseLevel(1.0, 0.0, 0.0)))
    assert not torch.allclose(made, tower.embed_noisy(pixels.movedim(-1, 1) * 2 - 1, LEVEL))
