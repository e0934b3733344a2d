"""A disk that fills while training goes on: it is said, nothing is lost, and what was saved before is whole."""

from __future__ import annotations

import builtins
import errno
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import mezzotint.blobs
from mezzotint import Dataset, Image, NodeError, api, hookimpl, node
from mezzotint.plugins import load_registry
from mezzotint.runtime import Runtime
from mezzotint.settings import Settings
from mezzotint.store import Store
from mezzotint_training import Objective, pack, running
from mezzotint_training.running import Session

sys.path.insert(0, str(Path(__file__).parent))
import tasks

STEPS, FULL_FROM = 12, 5
GRAPH = {
    "format": 1,
    "name": "full",
    "nodes": {
        "bowl": {"use": "acme.large@1", "inputs": {}},
        "numbers": {"use": "acme.numbers@1", "inputs": {}},
        "train": {
            "use": "training.train@1",
            "inputs": {"objective": {"ref": "bowl"}, "dataset": {"ref": "numbers"}, "steps": STEPS, "batch": 4},
        },
    },
    "outputs": {"weights": {"ref": "train.weights"}},
}


class Disk:
    """Files of a store, which cannot be written to any more once `full`."""

    def __init__(self):
        self.full, self.nan_at, self.fill_at, self.steps = False, None, None, []

    def open(self, path, mode="r", *more):
        file = builtins.open(path, mode, *more)
        return Shut(file) if self.full and "x" in mode else file


class Shut:
    """Takes half of what is written to it."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.file.write(bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


DISK = Disk()


class LargeTask(tasks.BowlTask):
    """So large that its state is a file of its own."""

    def __init__(self, objective):
        super().__init__(objective)
        self.modules["bowl"].weight = nn.Parameter(torch.zeros(1, 40_000))

    def loss(self, batch, part, generator):
        step = len(DISK.steps)
        DISK.steps.append(step)
        DISK.full = DISK.full or step == DISK.fill_at
        loss, figures = super().loss(batch, part, generator)
        noise = torch.randn((), generator=generator)
        return (loss + noise * self.modules["bowl"].weight.sum()) * (
            float("nan") if step == DISK.nan_at else 1
        ), figures

    def weights(self):
        return pack(self.modules["bowl"], "Bowl", {})


@dataclass(frozen=True, eq=False)
class Large(Objective):
    target: float = 3.0
    nan_at: int = -1
    rises: bool = False

    def open(self, ctx, reader, seed, batch):
        return LargeTask(self)


@node("acme.large")
def large() -> Objective:
    """A large parabola."""
    return Large()


@node("acme.numbers")
def numbers() -> Dataset:
    """Twelve numbers."""
    return tasks.DATA


@hookimpl
def register_nodes(register):
    register(large)
    register(numbers)


@hookimpl
def register_ports(register):
    register(Large)


@hookimpl
def register_loaders(register):
    register("tests.numbers", tasks.Numbers)


ACME = SimpleNamespace(
    __name__="acme",
    register_nodes=register_nodes,
    register_ports=register_ports,
    register_loaders=register_loaders,
)


@pytest.fixture(autouse=True)
def always_saving(monkeypatch):
    """A state is saved after every step, on a disk that can fill."""
    import mezzotint_image

    DISK.__init__()
    monkeypatch.setattr(mezzotint.blobs, "open", DISK.open, raising=False)
    monkeypatch.setattr(running, "Session", partial(Session, save_seconds=0.0))
    monkeypatch.setattr(
        mezzotint_image, "draw_chart", lambda *a, **o: Image(torch.zeros(1, 2, 2, 3)), raising=False
    )


def run(folder, *, nan_at=None, fill_at=None):
    """The weights, or the error that the node failed with; the warnings; which steps were computed."""
    DISK.__init__()
    DISK.nan_at, DISK.fill_at = nan_at, fill_at
    warned, registry = [], load_registry(namespaces=(), installed=False, extra=[ACME])
    store = Store(folder, limit_bytes=1 << 30)
    graph = api.load(GRAPH, runtime=Runtime(registry, store, Settings(device="cpu")))
    try:
        found = graph.run(on_event=lambda event: warned.append(str(getattr(event, "message", ""))))
        found = found.outputs["weights"].tensors["weight"].clone()
    except NodeError as error:
        found = error
    finally:
        DISK.full = False
        store.close()
    return found, [text for text in warned if "cannot be kept" in text], len(DISK.steps)


def test_training_goes_on_when_the_disk_is_full_and_ends_as_if_nothing_had_been(tmp_path):
    whole, warned, _ = run(tmp_path / "whole")
    assert warned == []
    found, warned, steps = run(tmp_path / "full", fill_at=FULL_FROM)
    assert torch.equal(found, whole) and steps == STEPS
    assert warned and all("No space left on device" in text and "bytes free" in text for text in warned)


def test_what_was_saved_before_the_disk_was_full_is_what_a_later_run_goes_on_from(tmp_path):
    whole, _, _ = run(tmp_path / "whole")
    error, _, steps = run(tmp_path / "full", fill_at=FULL_FROM, nan_at=9)
    assert steps == 10
    # It is told truly: not the state of step 9, for which there was no room.
    assert f"that of step {FULL_FROM} is kept" in str(error)
    found, _, steps = run(tmp_path / "full")
    assert steps == STEPS - FULL_FROM and torch.equal(found, whole)


def test_a_full_disk_is_tried_again_once_a_minute_and_not_after_every_step(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "Session", Session)
    _, warned, _ = run(tmp_path / "full", fill_at=0)
    # The first try, and the results at the end.
    assert 1 <= len(warned) <= 4
