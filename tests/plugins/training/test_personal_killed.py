"""kill -9 while a subject is learnt, on a real process: the next one ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SUBJECTS = Path(__file__).resolve().parents[3] / "graphs" / "customization" / "subjects"
PLUGIN = """
import os, signal
from pathlib import Path

from mezzotint_training.personal_task import PersonalTask

drawn = PersonalTask.batch


def batch(self, step, rank):
    with Path(os.environ["STEPS_LOG"]).open("a") as log:
        log.write(f"{step}\\n")
    if str(step) == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    return drawn(self, step, rank)


PersonalTask.batch = batch
"""


def link(name):
    return {"ref": name}


GRAPH = {
    "format": 1,
    "name": "killed",
    "inputs": {"pictures": {"type": "string", "format": "path"}},
    "nodes": {
        "model": {"use": "models.checkpoint@1", "inputs": {"source": "bundled:smallworld"}},
        "subject": {"use": "image.load_folder@1", "inputs": {"path": link("inputs.pictures"), "size": 64}},
        "objective": {
            "use": "training.personalise@1",
            "inputs": {
                "denoiser": link("model.denoiser"), "encoder": link("model.text_encoder"),
                "autoencoder": link("model.autoencoder"), "pictures": link("subject"), "prompts": ["a <thing>"],
                "prior": link("subject"), "prior_prompts": ["a shape"], "layers": ["attn2.to_k"], "rank": 2,
                "word": "<thing>", "begin": "shape",
            },
        },
        "train": {
            "use": "training.train@1",
            "inputs": {
                "objective": link("objective"), "steps": 8, "batch": 1, "validate_every": 8, "report_every": 4,
                "ema": 0.9,
            },
        },
    },
    "outputs": {"weights": link("train.weights"), "report": link("train.report")},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_subject_that_was_killed_half_learnt_is_learnt_on_to_the_same_bytes(tmp_path):
    (tmp_path / "acme.py").write_text(PLUGIN)
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))

    def start(place, **more):
        folder, log = tmp_path / place, tmp_path / f"{place}.log"
        folder.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        environment = {
            **os.environ, "MEZZOTINT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "STEPS_LOG": str(log),
            **more,
        }  # fmt: skip
        command = [sys.executable, "-m", "mezzotint", "run", "../graph.json", "--plugin", "../acme.py"]
        command += ["--pictures", str(SUBJECTS / "teal_crescent")]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        files = {Path(line).suffix: Path(folder, line).read_bytes() for line in done.stdout.splitlines()}
        return done.returncode, [int(line) for line in log.read_text().splitlines()], files

    code, steps, files = start("killed", KILL_AT="5")
    assert (code, steps[-1], files) == (-signal.SIGKILL, 5, {})
    code, steps, resumed = start("killed")
    assert code == 0 and 0 < steps[0] <= 5, "it should have gone on where it was"
    code, steps, whole = start("whole")
    assert (code, steps[0]) == (0, 0)
    assert len(whole) == 2 and resumed == whole
