"""`mezzotint chat`: a picture a turn, undo from the store, the dialogue's file, what goes wrong."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time

import pytest

from mezzotint.dialogue import read_dialogue


@pytest.fixture
def card(write):
    """A picture as wide as its seed says, and a node that the seed does not touch."""
    return write(
        {
            "plain": {
                "use": "image.solid@1",
                "inputs": {"width": {"ref": "inputs.seed"}, "height": 8, "colour": {"ref": "inputs.colour"}},
            },
        },
        inputs={
            "seed": {"type": "integer", "default": 8, "minimum": 1, "maximum": 64},
            "colour": {"type": "string", "default": "red"},
        },
        name="card.json",
    )


@pytest.fixture
def chat(cli, monkeypatch):
    def call(graph, *words, said=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        return cli("chat", graph, *words)

    return call


def events(done, kind):
    return [event for event in done.events if event["event"] == kind]


def test_each_turn_prints_its_pictures_path(chat, card):
    done = chat(card, said="seed 9\nseed 10\n")
    assert done.code == 0, done.err
    assert len(set(done.files)) == 3 and all(path.is_file() for path in done.files)


def test_undo_and_redo_run_nothing_and_give_the_same_file(chat, card):
    done = chat(card, "--json", said="seed 9\nundo\nredo\n")
    first, second, undone, redone = events(done, "result")
    assert (second["steps_run"], undone["steps_run"], redone["steps_run"]) == (first["steps_run"], 0, 0)
    assert undone["files"] == first["files"] and redone["files"] == second["files"]
    assert [turn["said"] for turn in events(done, "turn")] == ["seed 9", "undo", "redo"]


def test_a_turn_runs_only_what_it_changes(chat, write):
    graph = write(
        {
            "kept": {"use": "image.solid@1", "inputs": {"width": 8, "height": 8, "colour": "red"}},
            "made": {"use": "image.solid@1", "inputs": {"width": {"ref": "inputs.seed"}, "height": 8}},
        },
        outputs={"kept": {"ref": "kept"}, "made": {"ref": "made"}},
        inputs={"seed": {"type": "integer", "default": 8}},
    )
    done = chat(graph, "--json", said="seed 9\n")
    started = [event["node"] for event in done.events if event["event"] == "node_started"]
    assert started.count("kept") == 1 and started.count("made") == 2


def test_what_is_not_understood_changes_nothing_and_shows_in_the_exit_code(chat, card, place):
    done = chat(card, "--dialogue", "d.json", said="seed 9\nfly away\n\n# a remark\nseed 99\nundo\n")
    assert done.code == 1
    assert "error:" in done.err and "seed: input should be less than or equal to 64" in done.err
    assert len(done.files) == 3 and done.files[0] == done.files[2]
    assert [turn.said for turn in read_dialogue(place / "d.json").turns] == ["seed 9", "undo"]


def test_the_dialogue_goes_on_from_its_file(chat, card):
    chat(card, "--dialogue", "d.json", "--colour", "blue", said="seed 9\nquit\nseed 10\n")
    done = chat(card, "--dialogue", "d.json", "--json", said="undo\n")
    assert done.code == 0, done.out
    assert [result["steps_run"] for result in events(done, "result")] == [0, 0]
    assert events(done, "turn")[0]["inputs"] == {"colour": "blue"}


def test_a_file_of_another_graph_or_with_other_inputs_is_refused(chat, card, write):
    chat(card, "--dialogue", "d.json", said="seed 9\n")
    again = chat(card, "--dialogue", "d.json", "--seed", "5")
    assert again.code == 2 and "has begun already" in again.err
    other = write({"plain": {"use": "image.solid@1", "inputs": {"width": 8, "height": 8}}}, name="other.json")
    done = chat(other, "--dialogue", "d.json")
    assert done.code == 2 and "card.json" in done.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--interpreter", "word"], "did you mean 'words'"),
        (["--setting", "url"], "wanted NAME=VALUE"),
        (["--setting", "url=x"], "'words' has no such setting"),
        (["--dialogue", "broken.json"], "broken.json: not JSON"),
        (["--seed", "99"], "less than or equal to 64"),
    ],
)
def test_bad_usage_is_named_before_anything_runs(chat, card, place, words, why):
    (place / "broken.json").write_text("{")
    done = chat(card, *words)
    assert done.code == 2 and why in done.err and done.out == ""


def test_help_is_answered_without_a_picture(chat, card):
    done = chat(card, said="what can I say\n")
    assert done.code == 0 and "make it blue" in done.err and len(done.files) == 1


def test_a_chat_of_cached_pictures_imports_neither_torch_nor_rich(chat, card):
    chat(card, said="seed 9\n")
    script = (
        "import sys\nfrom mezzotint.cli import run_verbs\n"
        f"code = run_verbs(['chat', {str(card)!r}])\nprint(code, *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input="seed 9\nundo\n", capture_output=True, text=True, check=True
    )
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "0" and len(done.stdout.splitlines()) == 3, done.stderr
    assert not {"torch", "numpy", "PIL", "diffusers", "transformers", "scipy", "rich", "networkx"} & set(modules)


def test_ctrl_c_while_a_picture_is_made_ends_a_script_and_keeps_what_was_said(write, place, log):
    graph = write(
        {
            "slow": {
                "use": "arith.slow@1",
                "inputs": {"value": 1.0, "steps": {"ref": "inputs.steps"}, "pause": 0.05},
            }
        },
        inputs={"steps": {"type": "integer", "default": 1}},
    )
    (place / "said.txt").write_text("steps 2\nsteps 2000\nsteps 3\n")
    with (place / "said.txt").open() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mezzotint", "chat", str(graph), "--dialogue", "d.json"],
            stdin=said, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    for _ in range(600):
        if (place / "d.json").exists() and len(log()) > 8:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "the picture before it stands" in errors
    assert [turn.said for turn in read_dialogue(place / "d.json").turns] == ["steps 2"]
    assert json.loads((place / "d.json").read_text())["turns"][0]["inputs"] == {"steps": 2}
