"""`training.contrastive`: the loss in closed forms, CLIP's own embeddings, the temperature, a locked tower."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mezzotint import Dataset, UserError
from mezzotint_models import build_network
from mezzotint_training.contrastive import contrastive
from mezzotint_training.pairs import contrastive_loss, found_first
from mezzotint_training.train_node import train

sys.path.insert(0, str(Path(__file__).parent))
from scenes import PICTURES, WORLD, context, generator, opened

TINY = {"size": 16, "patch": 8, "width": 16, "layers": 1, "text_width": 16, "text_layers": 1, "heads": 2}


pytestmark = pytest.mark.usefixtures("quick_charts")


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator(seed)).double(), dim=1)


def test_without_a_difference_the_loss_is_that_of_a_blind_guess() -> None:
    assert contrastive_loss(rows(8, 5, 0), rows(8, 5, 1), torch.tensor(0.0)).item() == pytest.approx(math.log(8))


def test_perfect_pairs_have_no_loss_at_a_low_temperature() -> None:
    image = torch.eye(6).double()
    assert contrastive_loss(image, image, torch.tensor(100.0)).item() < 1e-6
    assert contrastive_loss(image, image.roll(1, 0), torch.tensor(100.0)).item() > 50


def test_the_loss_is_the_mean_of_both_cross_entropies() -> None:
    image, text = rows(5, 4, 0), rows(5, 4, 1)
    chances = torch.exp(7 * image @ text.T)
    by_row = -torch.log(chances.diagonal() / chances.sum(1)).mean()
    by_column = -torch.log(chances.diagonal() / chances.sum(0)).mean()
    got = contrastive_loss(image, text, torch.tensor(7.0))
    torch.testing.assert_close(got, (by_row + by_column) / 2)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(contrastive_loss(image[order], text[order], torch.tensor(7.0)), got)


def test_the_share_that_is_found_first_is_counted_both_ways() -> None:
    image = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    text = torch.tensor([[0.9, 0.436], [0.0, 1.0]])
    assert found_first(image, text) == (0.5, 0.5)
    assert found_first(image, text, within=2) == (1.0, 1.0)


def test_the_towers_are_transformers_own_and_padding_changes_nothing() -> None:
    task = opened(contrastive(**TINY), WORLD, batch=4)
    pictures, ids = task.batch(0, 0)
    assert pictures.shape == (4, 3, 16, 16) and ids.shape == (4, 32)
    image, text = task.embed(pictures, ids)
    whole = task.clip.get_text_features(ids).pooler_output
    torch.testing.assert_close(text, whole / whole.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(image.norm(dim=1), torch.ones(4))


def test_the_temperature_begins_at_seven_hundredths_and_stays_above_one() -> None:
    task = opened(contrastive(**TINY), WORLD, batch=4)
    assert task.clip.logit_scale.item() == pytest.approx(math.log(1 / 0.07), abs=1e-4)
    with torch.no_grad():
        task.clip.logit_scale.fill_(9.0)
    task.after("clip")
    assert task.clip.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize(("locked", "stays"), [("text", "text_"), ("image", "vis")])
def test_a_locked_tower_stays_as_it_was_and_the_other_learns(locked: Any, stays: str) -> None:
    settings: dict[str, Any] = {"steps": 2, "batch": 4, "report_every": 2, "ema": 0.0, "warm_up": 0}
    first = train(context(previews=False), contrastive(**TINY), WORLD, **settings).weights
    objective = contrastive(**TINY, locked=locked)
    again = train(context(previews=False), objective, WORLD, first, **{**settings, "seed": 1}).weights
    changed = {name for name, value in again.tensors.items() if not torch.equal(value, first.tensors[name])}
    assert changed and not any(name.startswith(stays) for name in changed)
    assert {"logit_scale"} < changed
    assert {"text_encoder", "image_encoder"} < again.meta.keys()
    assert build_network(again).get_image_features(torch.zeros(1, 3, 16, 16)).pooler_output.shape == (1, 64)


@pytest.mark.parametrize(
    ("dataset", "batch", "message"),
    [
        (WORLD, 1, "a batch of at least 2"),
        (PICTURES, 4, "has no tokenizer"),
        (WORLD.replace(length=9), 4, "at least"),
    ],
)
def test_what_cannot_be_contrasted_is_refused(dataset: Dataset, batch: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(contrastive(**TINY), dataset, batch=batch)
