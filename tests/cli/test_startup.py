"""Start-up is a feature: what must not be imported, and how much processor time is spent."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "diffusers", "transformers", "scipy", "rich")


def modules_after(*words, code=0):
    """The modules that a command line has imported at its end."""
    script = (
        "import sys\n"
        "from mezzotint.cli import run_verbs\n"
        f"code = run_verbs({[str(w) for w in words]!r})\n"
        "print(code, *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, *modules = done.stderr.splitlines()[-1].split()
    assert int(first) == code, done.stderr
    return set(modules)


def seconds(*words):
    """The least processor time of a few tries: the machine has other work too."""
    best = float("inf")
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "mezzotint", *map(str, words)], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


@pytest.fixture
def picture_graph(write):
    return write({"plain": {"use": "image.solid@1", "inputs": {"width": 8, "height": 8}}}, name="picture.json")


def test_help_imports_neither_torch_nor_networkx_nor_pydantic(place):
    modules = modules_after("--help")
    assert not {*HEAVY, "networkx", "pydantic", "pluggy", "sqlite3"} & modules


def test_help_takes_at_most_0_3_seconds_of_cpu(place):
    assert seconds("--help") <= 0.3


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--help"],
        ["run", "sum.json", "--help"],
        ["nodes"],
        ["nodes", "show", "sampling.sample"],
        ["validate", "bundled:graphs/text_to_image.json"],
        ["plan", "sum.json"],
        ["plan", "sum.json", "--dot"],
        ["schema"],
        ["plugins"],
        ["kernels"],
        ["kernels", "--arch", "sm90"],
        ["cache", "ls"],
        ["runs", "ls"],
    ],
    ids=" ".join,
)
def test_looking_imports_no_torch(sum_graph, words):
    assert not {*HEAVY, "networkx"} & modules_after(*words)


def test_a_cached_run_imports_no_torch(cli, picture_graph):
    first = cli("run", picture_graph)
    assert first.code == 0, first.err
    assert not {*HEAVY, "networkx"} & modules_after("run", picture_graph)
    assert cli("run", picture_graph).files == first.files


def test_planning_a_cached_run_imports_no_torch(cli, picture_graph):
    cli("run", picture_graph)
    assert not {*HEAVY, "networkx"} & modules_after("plan", picture_graph)


@pytest.mark.slow
def test_a_cached_picture_takes_at_most_0_8_seconds_of_cpu(place):
    run = ["run", "bundled:graphs/text_to_image.json", "--steps", "2"]
    subprocess.run([sys.executable, "-m", "mezzotint", *run], check=True, capture_output=True)
    assert not {*HEAVY, "networkx"} & modules_after(*run)
    assert seconds(*run) <= 0.8


def test_every_verbs_help_line_is_the_one_in_the_list(place):
    import importlib

    from mezzotint.cli import VERBS

    for verb, (module, text) in VERBS.items():
        command = importlib.import_module(f"mezzotint.cli.{module}").command
        assert command.name == verb
        assert command.help.splitlines()[0] == text


def test_a_reader_that_goes_away_is_no_error(place):
    script = f"{sys.executable} -m mezzotint schema | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ)
    assert done.stderr == "" and done.returncode == 0


def test_json_is_all_that_json_prints(place, sum_graph):
    done = subprocess.run(
        [sys.executable, "-m", "mezzotint", "run", "sum.json", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(json.loads(line) for line in done.stdout.splitlines()) and done.stderr == ""
