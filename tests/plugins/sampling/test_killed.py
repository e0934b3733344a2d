"""kill -9 in the middle of a sampling run, on a real process: the next one ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGIN = '''
import os, signal
from pathlib import Path

from mezzotint import Conditioning, Latents, hookimpl, node
from mezzotint.testing.gaussian import denoiser, load_gaussian


@node("acme.text")
def text() -> Conditioning:
    """No words."""
    return Conditioning()


@node("acme.numbers")
def numbers(latents: Latents) -> list[float]:
    """All the numbers of some latents, exactly.

    latents: any.
    """
    return latents.data.double().flatten().tolist()


@hookimpl
def register_nodes(register):
    for function in (text, numbers, denoiser):
        register(function)


@hookimpl
def register_loaders(register):
    register("testing.gaussian", load_gaussian)


@hookimpl
def before_step(step):
    with Path(os.environ["STEPS_LOG"]).open("a") as log:
        log.write(f"{step}\\n")


@hookimpl
def after_step(step):
    if str(step) == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
'''


def graph(sampler: str, options: dict[str, Any]) -> dict[str, Any]:
    model, text = {"ref": "model"}, {"ref": "text"}
    size = {"width": 64, "height": 64}
    given = {"denoiser": model, "conditioning": text, "latents": {"ref": "empty"}, "sigmas": {"ref": "levels"}}
    return {
        "format": 1,
        "name": "killed",
        "nodes": {
            "model": {"use": "testing.denoiser@1", "inputs": {"mean": 0.5, "std": 0.3}},
            "empty": {"use": "sampling.empty_latents@1", "inputs": {"denoiser": model, **size}},
            "levels": {"use": "sampling.sigmas@1", "inputs": {"denoiser": model, "steps": 8}},
            "noise": {"use": "sampling.noise@1", "inputs": {"seed": 3}},
            "text": {"use": "acme.text@1", "inputs": {}},
            "sample": {
                "use": "sampling.sample@1",
                "inputs": {**given, "noise": {"ref": "noise"}, "sampler": sampler, "options": options},
            },
            "numbers": {"use": "acme.numbers@1", "inputs": {"latents": {"ref": "sample"}}},
        },
        "outputs": {"numbers": {"ref": "numbers"}},
    }


@pytest.mark.parametrize(
    ("sampler", "options", "kill_at"),
    [
        ("unipc", {"order": 3}, 5),
        pytest.param("dpmpp_sde", {}, 6, marks=pytest.mark.slow),
        pytest.param("lms", {}, 5, marks=pytest.mark.slow),
        pytest.param("restart", {"low": 0.5}, 9, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    sampler: str, options: dict[str, Any], kill_at: int, tmp_path: Path
) -> None:
    (tmp_path / "acme.py").write_text(PLUGIN)
    (tmp_path / "graph.json").write_text(json.dumps(graph(sampler, options)))

    def start(place: str, **more: str) -> tuple[int, list[int], list[bytes]]:
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        log = tmp_path / f"{place}.log"
        log.unlink(missing_ok=True)
        environment = {
            **os.environ, "MEZZOTINT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "STEPS_LOG": str(log),
            **more,
        }  # fmt: skip
        command = [sys.executable, "-m", "mezzotint", "run", "../graph.json", "--plugin", "../acme.py"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        files = [Path(folder, line).read_bytes() for line in done.stdout.splitlines()]
        return done.returncode, [int(line) for line in log.read_text().splitlines()], files

    code, steps, files = start("killed", KILL_AT=str(kill_at))
    assert (code, steps, files) == (-signal.SIGKILL, list(range(kill_at + 1)), [])
    code, steps, resumed = start("killed")
    assert (code, steps[0]) == (0, kill_at)
    code, steps, whole = start("whole")
    assert (code, steps[0]) == (0, 0)
    assert len(whole) == 1 and resumed == whole
