"""kill -9 in the middle of a training run, on a real process: the next one ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

PLUGIN = '''
import os, signal, sys
from dataclasses import dataclass
from pathlib import Path

from mezzotint import Dataset, hookimpl, node
from mezzotint_training import Objective

sys.path.insert(0, os.environ["TASKS"])
import tasks


@node("acme.duel")
def duel() -> Objective:
    """Two networks against each other."""
    return KilledDuel()


@node("acme.numbers")
def numbers() -> Dataset:
    """Twelve numbers."""
    return tasks.DATA


@dataclass(frozen=True, eq=False)
class KilledDuel(tasks.Duel):
    def open(self, ctx, reader, seed, batch):
        task = super().open(ctx, reader, seed, batch)
        inner = task.loss

        def loss(batch, part, generator):
            step = batch[0] // 2
            with Path(os.environ["STEPS_LOG"]).open("a") as log:
                log.write(f"{step}\\n")
            if str(step) == os.environ.get("KILL_AT"):
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(batch, part, generator)

        task.loss = loss
        return task


@hookimpl
def register_nodes(register):
    for function in (duel, numbers):
        register(function)


@hookimpl
def register_ports(register):
    register(KilledDuel)


@hookimpl
def register_loaders(register):
    register("tests.numbers", tasks.Numbers)
'''

GRAPH = {
    "format": 1,
    "name": "killed",
    "nodes": {
        "duel": {"use": "acme.duel@1", "inputs": {}},
        "numbers": {"use": "acme.numbers@1", "inputs": {}},
        "train": {
            "use": "training.train@1",
            "inputs": {
                "objective": {"ref": "duel"}, "dataset": {"ref": "numbers"},
                "steps": 12, "batch": 4, "report_every": 4,
            },
        },
    },
    "outputs": {"weights": {"ref": "train.weights"}, "report": {"ref": "train.report"}},
}  # fmt: skip


def test_a_killed_training_run_goes_on_to_the_same_bytes(tmp_path):
    (tmp_path / "acme.py").write_text(PLUGIN)
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))

    def start(place, **more):
        folder, log = tmp_path / place, tmp_path / f"{place}.log"
        folder.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        environment = {
            **os.environ, "MEZZOTINT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "STEPS_LOG": str(log),
            "TASKS": str(Path(__file__).parent), **more,
        }  # fmt: skip
        command = [sys.executable, "-m", "mezzotint", "run", "../graph.json", "--plugin", "../acme.py"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        files = {line: Path(folder, line).read_bytes() for line in done.stdout.splitlines()}
        return done.returncode, [int(line) for line in log.read_text().splitlines()], files

    code, steps, files = start("killed", KILL_AT="8")
    assert (code, steps[-1], files) == (-signal.SIGKILL, 8, {})
    code, steps, resumed = start("killed")
    assert code == 0 and 0 < steps[0] <= 8, "it should have gone on where it was"
    code, steps, whole = start("whole")
    assert (code, steps[0]) == (0, 0)
    assert len(whole) == 2 and resumed == whole
