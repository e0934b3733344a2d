"""The network of video features in training: what it is told, what it learns, what its weights become."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mezzotint import UserError
from mezzotint.testing import check_node, fake_context
from mezzotint_metrics import register_nodes
from mezzotint_metrics.clip_classifier import ClipClassifier
from mezzotint_metrics.clip_objective import learn_clips
from mezzotint_models import build_network
from mezzotint_training import Task

register_nodes(lambda node: None)  # which also makes its network known

SMALL = {"frames": 4, "size": 8, "patch": 2, "channels": [8, 16], "width": 16, "hidden": 16}


class Sliding:
    """Clips of a bright square that slides left or right, on grey; the first frames of both are alike."""

    def __init__(self, length: int = 40, frames: int = 4) -> None:
        self.length, self.frames = length, frames
        self.class_names = {"motion": ("left", "right"), "colour": ("red", "blue", "both")}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng(index)
        way, colour, top = int(rng.integers(2)), int(rng.integers(2)), int(rng.integers(0, 6))
        clip = np.full((self.frames, 8, 8, 3), 90, np.uint8)
        for frame in range(self.frames):
            left = 3 + (1 if way else -1) * frame * 3 // self.frames
            clip[frame, top : top + 3, left : left + 3] = (255, 0, 0) if colour == 0 else (0, 0, 255)
        return {"clip": clip, "classes": {"motion": [way], "colour": [colour]}}


class Two(Sliding):
    def __getitem__(self, index: int) -> dict:
        return {**super().__getitem__(index), "classes": {"motion": [0, 1], "colour": [1, 1]}}


def opened(reader, batch: int = 8, **settings) -> Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        (objective,) = check_node(learn_clips, **{**SMALL, **settings}).values()
        return objective.open(fake_context(), reader, 0, batch)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_it_learns_which_way_things_go_of_clips_that_begin_alike():
    task = opened(Sliding(200), batch=16, noise=0.05)
    optimiser = torch.optim.AdamW(task.network.parameters(), lr=3e-3)
    for step in range(50):
        loss, _ = task.loss(task.batch(step, 0), "network", generator())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    task.network.eval()
    got = task.validate(generator())
    assert got["motion"] == got["colour"] == 1 and got["loss"] < math.log(2)


def test_the_loss_is_the_sum_of_the_heads_cross_entropies():
    task = opened(Sliding())
    batch = task.batch(0, 0)
    blind, _ = task.judged({"motion": torch.zeros(8, 2), "colour": torch.zeros(8, 3)}, batch)
    assert blind.item() == pytest.approx(math.log(2) + math.log(3))
    sure = {name: batch[name] * 50 for name in ("motion", "colour")}
    loss, figures = task.judged(sure, batch)
    assert loss.item() < 1e-6 and figures["motion"] == figures["colour"] == 1


def test_two_things_are_said_half_and_half_and_either_is_right():
    task = opened(Two())
    batch = task.batch(0, 0)
    assert torch.equal(batch["motion"], torch.full((8, 2), 0.5))
    assert torch.equal(batch["colour"], torch.tensor([0.0, 1.0, 0.0]).expand(8, 3))
    for answer in (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])):
        logits = {"motion": answer.expand(8, 2), "colour": torch.zeros(8, 3)}
        assert task.right(logits, batch, "motion").all()


def test_clips_that_are_held_out_are_never_trained_on():
    task = opened(Sliding(40))
    read: list[int] = []
    task.items = read.extend
    for step in range(20):
        task.batch(step, 0)
    assert set(read) == set(range(36))


def test_its_weights_make_the_same_network_again():
    task = opened(Sliding())
    weights = task.weights()
    again = build_network(weights)
    clips = torch.rand(2, 4, 3, 8, 8) * 2 - 1
    assert weights.meta["clip_classifier"]["classes"] == {
        "motion": ["left", "right"],
        "colour": ["red", "blue", "both"],
    }
    assert torch.equal(again(clips).features, task.network.eval()(clips).features)


def test_its_sheet_has_a_row_of_frames_for_each_clip():
    task = opened(Sliding(100))
    assert tuple(task.sheet(generator()).data.shape) == (1, 8 * 10, 4 * 10, 3)


@pytest.mark.parametrize("size", [10, 4])
def test_a_size_that_the_levels_do_not_divide_is_refused(size):
    with pytest.raises(UserError, match="need a size that 8 divides"):
        learn_clips(**{**SMALL, "size": size, "channels": [8, 16, 24]})
    with pytest.raises(ValueError, match="at least 2 frames"):
        ClipClassifier(heads={"a": ["b"]}, frames=1)


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (Sliding(9), "at least 10 clips"),
        (Sliding(40, frames=5), r"item \d+: wanted a clip \[4, H, W, 3\] uint8, got \[5, 8, 8, 3\]"),
        ([{"image": 0}] * 20, "names no classes"),
    ],
)
def test_data_that_it_cannot_learn_from_is_refused(reader, message):
    with pytest.raises(UserError, match=message):
        opened(reader).batch(0, 0)


def test_items_without_clips_or_with_unknown_classes_are_refused():
    class Pictures(Sliding):
        def __getitem__(self, index: int) -> dict:
            return {"image": np.zeros((8, 8, 3), np.uint8)}

    class Odd(Sliding):
        def __getitem__(self, index: int) -> dict:
            return {**super().__getitem__(index), "classes": {"motion": [2], "colour": [0]}}

    with pytest.raises(UserError, match=r"has no 'clip'; smallworld\.clip_dataset gives such"):
        opened(Pictures()).batch(0, 0)
    with pytest.raises(UserError, match=r"its motion is \[2\], wanted 0 to 1"):
        opened(Odd()).batch(0, 0)
