"""Objectives on noisy pictures: what the network is shown, what it is to say, what its weights become."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mezzotint import NoiseLevel, UserError
from mezzotint.testing import fake_context
from mezzotint_models.classifiers import classifier, load_classifier
from mezzotint_models.image_encoders import image_encoder, load_image_encoder
from mezzotint_training.noisy import noised_clip, noisy_classifier
from mezzotint_training.pairs import contrastive_loss
from mezzotint_training.train_node import train

sys.path.insert(0, str(Path(__file__).parent))
from scenes import AUTOENCODER, ENCODER, PICTURES, WORLD, context, generator, opened, tiny

LABELLED = WORLD.replace(config={**WORLD.config, "label": "shape"})
SMALL: dict[str, Any] = {"channels": [8], "head_channels": 8, "patch": 4}


pytestmark = pytest.mark.usefixtures("quick_charts")


def test_the_network_sees_each_picture_at_its_own_level_of_the_denoisers_process() -> None:
    task = opened(noisy_classifier(tiny(), **SMALL), LABELLED, batch=12)
    seen: dict[str, torch.Tensor] = {}

    def encoder(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.update(x=x, times=times)
        return torch.zeros(len(x), 8)

    task.encoder = encoder
    batch = task.batch(0, 0)
    task.answers(batch, generator(), 0.5, 0.75)
    times = seen["times"].long()
    assert times.min() >= 500 and times.max() < 750 and len(set(times.tolist())) == 12
    alpha, sigma = (table[times].float().view(-1, 1, 1, 1) for table in (task.process.alpha, task.process.sigma))
    noise = (seen["x"] - alpha * (batch["levels"].float() / 127.5 - 1)) / sigma
    assert noise.mean().item() == pytest.approx(0, abs=0.1) and noise.std().item() == pytest.approx(1, abs=0.1)


def test_the_classifiers_loss_is_the_cross_entropy_of_the_items_labels() -> None:
    task = opened(noisy_classifier(tiny(), **SMALL), LABELLED, batch=6)
    rows = task.batch(0, 0)
    blind, _ = task.judged(torch.zeros(6, 8), rows)
    assert blind.item() == pytest.approx(math.log(8))
    sure = torch.nn.functional.one_hot(rows["label"], 8).float() * 50
    loss, figures = task.judged(sure, rows)
    assert loss.item() < 1e-6 and figures["accuracy"] == 1


def test_the_noised_tower_is_compared_with_the_embeddings_of_its_captions() -> None:
    task = opened(noised_clip(tiny(), ENCODER, **SMALL), PICTURES, batch=5)
    rows = task.batch(0, 0)
    torch.testing.assert_close(rows["text"].norm(dim=1), torch.ones(5))
    answers = torch.randn(5, 4, generator=generator(1))
    unit = torch.nn.functional.normalize(answers, dim=1)
    loss, _ = task.judged(answers, rows)
    torch.testing.assert_close(loss, contrastive_loss(unit, rows["text"], torch.tensor(1 / 0.07)))
    with torch.no_grad():
        task.temperature.logarithm.fill_(9.0)
    task.after("encoder")
    assert task.temperature.logarithm.exp().item() == pytest.approx(100, rel=1e-5)


def test_a_trained_classifier_names_the_labels_and_guides_the_denoisers_size() -> None:
    made = train(
        context(previews=False), noisy_classifier(tiny(), **SMALL), LABELLED, steps=1, batch=4, validate_every=1
    )
    assert set(made.report.data["validation"][0]) == {"step", "loss", *(f"accuracy_{i}" for i in range(4))}
    recipe = classifier(made.weights)
    assert recipe.classes == ("circle", "square", "triangle", "star", "heart", "ring", "diamond", "cross")
    model = load_classifier(recipe, fake_context())
    assert model(torch.zeros(2, 3, 8, 8), NoiseLevel(0.5, 0.8, 3.0)).shape == (2, 8)


def test_a_trained_noised_tower_embeds_noisy_pictures() -> None:
    made = train(context(previews=False), noised_clip(tiny(), ENCODER, **SMALL), PICTURES, steps=1, batch=4)
    tower = load_image_encoder(image_encoder(made.weights), fake_context())
    embedded = tower.embed_noisy(torch.zeros(2, 3, 8, 8), NoiseLevel(0.5, 0.8, 3.0))
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2))
    assert embedded.shape == (2, 4) and made.sheet.data.shape[-1] == 3


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(UserError, match=r'smallworld.dataset gives them with "label"'):
        opened(noisy_classifier(tiny(), **SMALL), WORLD)
    with pytest.raises(UserError, match="wanted one of pixels"):
        noisy_classifier(tiny(AUTOENCODER), **SMALL)
    with pytest.raises(UserError, match="need a side that 16 divides"):
        noisy_classifier(tiny(), channels=[8, 8], patch=8)
    with pytest.raises(UserError, match="no multiple of head_channels 24"):
        noisy_classifier(tiny(), channels=[8, 16], patch=2)
    with pytest.raises(UserError, match="a batch of at least 2"):
        opened(noised_clip(tiny(), ENCODER, **SMALL), PICTURES, batch=1)
