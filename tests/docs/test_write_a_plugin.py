"""Every block of docs/write-a-plugin.md is run, in the order of the page."""

import os
import subprocess
import sys
import tomllib

import pytest

PAGE = "write-a-plugin.md"


@pytest.fixture
def workspace(blocks, tmp_path):
    """A folder with all the files that the page has the reader write."""
    for block in blocks(PAGE):
        if block.file:
            (tmp_path / block.file).write_text(block.text + "\n")
    return tmp_path


def run(folder, *command):
    environment = {**os.environ, "MEZZOTINT_CACHE": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_is_of_a_kind_that_is_run(blocks):
    for block in blocks(PAGE):
        assert block.file or block.mark == "test" or block.language in ("console", "toml"), block.text


def test_the_first_plugin_has_ten_lines(blocks):
    first = next(b for b in blocks(PAGE) if b.file == "invert.py")
    assert len([line for line in first.text.splitlines() if line]) <= 10


def test_the_tests_on_the_page_pass(workspace, blocks):
    commands = [c for b in blocks(PAGE) if b.language == "console" for c in b.commands() if c[0] == "pytest"]
    assert commands == [["pytest", "-q", "test_nodes.py"]]
    assert "5 passed" in run(workspace, "-m", *commands[0], "-p", "no:cacheprovider")


def test_the_python_that_is_no_file_runs(workspace, blocks):
    code = "\n".join(b.text for b in blocks(PAGE) if b.mark == "test")
    run(workspace, "-c", code)


def test_the_entry_point_is_the_one_that_new_plugin_writes(blocks, tmp_path):
    from mezzotint.scaffold import new_plugin

    new_plugin("acme-nodes", tmp_path / "acme-nodes")
    written = tomllib.loads((tmp_path / "acme-nodes" / "pyproject.toml").read_text())
    (shown,) = [tomllib.loads(b.text) for b in blocks(PAGE) if b.language == "toml"]
    assert shown["project"]["entry-points"] == written["project"]["entry-points"]


def test_the_commands_on_the_page_work(workspace, blocks):
    for block in blocks(PAGE):
        for program, *arguments in block.commands() if block.language == "console" else ():
            if program == "mezzotint":
                run(workspace, "-c", "import sys; from mezzotint.cli import main; sys.exit(main())", *arguments)
    assert list((workspace / "outputs").rglob("*.png"))
    assert (workspace / "acme-nodes" / "pyproject.toml").is_file()
