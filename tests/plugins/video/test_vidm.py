"""bundled:vidm on real first frames, and kill -9 in the middle of a clip."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint import Latents, Noise, Source, Video
from mezzotint.testing import fake_context
from mezzotint_models.checkpoint import checkpoint
from mezzotint_models.denoiser import denoiser
from mezzotint_models.packed import load_weights
from mezzotint_models.prompt import encode_text
from mezzotint_models.shared import put_back
from mezzotint_sampling.nodes import sigmas
from mezzotint_smallworld import check_clips, resolve_source
from mezzotint_smallworld.motion_captions import motion_prompts
from mezzotint_smallworld.motion_draw import draw_clip
from mezzotint_video.frame_loop import next_frames

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FRAMES = 8


def bundled(name: str) -> Source:
    return Source(f"bundled:{name}", str(resolve_source(f"bundled:{name}")), "0")


def clips_of(count: int, **settings: Any) -> tuple[list[str], Tensor, Tensor]:
    """Prompts never trained on, their true clips, and what the motion model makes of the true first frames."""
    prompts = motion_prompts(count, 11, things=1, **settings)
    told = [prompt for prompt, _ in prompts]
    true = torch.stack([torch.from_numpy(draw_clip(scene, FRAMES).video.copy()) / 255 for _, scene in prompts])
    model = checkpoint(source=bundled("smallworld"))
    motion = denoiser(put_back(load_weights(bundled("vidm")), source=bundled("smallworld")))
    with fake_context() as ctx, torch.no_grad():
        autoencoder = ctx.realise(model.autoencoder)
        first = Latents(autoencoder.encode(true[:, 0]).float(), model.autoencoder.space, 4)
        words = encode_text(ctx, model.text_encoder, text=told)
        made = next_frames(ctx, motion, words, first, sigmas(motion, steps=8), Noise(seed=0), frames=FRAMES)
        seen = torch.stack([autoencoder.decode(clip.transpose(0, 1)) for clip in made.data]).clamp(0, 1)
    return told, true, seen


def psnr(made: Tensor, true: Tensor) -> Tensor:
    """[B, F] in dB."""
    return -10 * (made - true).square().flatten(2).mean(2).clamp(min=1e-6).log10()


def test_true_first_frames_move_as_their_words_say_and_nearer_to_the_truth_than_if_they_stood() -> None:
    moving = ("left", "right", "up", "down")
    told, true, made = clips_of(16, motions=moving)
    held = made[:, :1].expand_as(made)
    # The first step is a small one: holding still is as near.
    assert (psnr(made, true)[:, 2:].mean(0) > psnr(held, true)[:, 2:].mean(0)).all()
    assert check_clips(Video(made, fps=FRAMES), prompts=told).data["score"]["motion"] >= 60


def test_what_is_said_to_be_still_moves_less_than_what_is_said_to_move() -> None:
    changes = []
    for motions in (("still",), ("left", "right")):
        _, _, made = clips_of(8, motions=motions)
        changes.append((made[:, -1] - made[:, 0]).abs().mean().item())
    assert changes[0] < 0.8 * changes[1]


PLUGIN = """
import os, signal
from pathlib import Path

from mezzotint import hookimpl


@hookimpl
def after_step(step):
    log = Path(os.environ["STEPS_LOG"])
    with log.open("a") as file:
        file.write("x")
    if log.stat().st_size == int(os.environ.get("KILL_AT", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_clip_goes_on_after_its_last_frame_to_the_same_bytes(tmp_path: Path) -> None:
    """One step for the first frame and two for each of the other three; the second of these is under way."""
    (tmp_path / "acme.py").write_text(PLUGIN)
    graph = Path(__file__).resolve().parents[3] / "graphs" / "video" / "vidm.json"

    def start(place: str, **more: str) -> tuple[int, int, list[bytes]]:
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        log = tmp_path / f"{place}.log"
        log.unlink(missing_ok=True)
        environment = {
            **os.environ, "MEZZOTINT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "STEPS_LOG": str(log),
            **more,
        }  # fmt: skip
        command = [
            sys.executable, "-m", "mezzotint", "run", str(graph), "--plugin", "../acme.py", "--frames", "4",
            "--steps", "1", "--motion_steps", "2", "--batch", "1", "--prompt", '["a red star, moving left"]',
            "--wanted", "strip",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        files = [Path(folder, line).read_bytes() for line in done.stdout.splitlines()]
        return done.returncode, log.stat().st_size, files

    assert start("killed", KILL_AT="4") == (-signal.SIGKILL, 4, [])
    code, steps, resumed = start("killed")
    # The frame that was under way begins again, the one before it does not.
    assert (code, steps) == (0, 4)
    code, steps, whole = start("whole")
    assert (code, steps) == (0, 7)
    assert len(whole) == 1 and resumed == whole
