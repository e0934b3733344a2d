"""Every block of docs/write-an-injector.md is run, and its package can be installed."""

import os
import shutil
import subprocess
import sys
import tomllib

import pytest

PAGE = "write-an-injector.md"


@pytest.fixture
def workspace(blocks, tmp_path):
    """A folder with all the files that the page has the reader write."""
    for block in blocks(PAGE):
        if block.file:
            path = tmp_path / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n")
    shutil.copy(tmp_path / "focus.py", tmp_path / "acme-focus" / "acme_focus" / "focus.py")
    return tmp_path


def run(folder, *command, path=()):
    found = os.pathsep.join([*map(str, path), *sys.path])
    environment = {**os.environ, "MEZZOTINT_CACHE": str(folder / "cache"), "PYTHONPATH": found}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_is_of_a_kind_that_is_run(blocks):
    for block in blocks(PAGE):
        assert block.file or block.language == "console", block.text


def test_the_first_injector_and_its_node_have_twenty_lines_before_they_are_registered(blocks):
    (first,) = (b.text for b in blocks(PAGE) if b.file == "focus.py")
    assert len([line for line in first.partition("@hookimpl")[0].splitlines() if line.strip()]) <= 20


@pytest.mark.timeout(600)
def test_the_tests_on_the_page_pass(workspace, blocks):
    commands = [c for b in blocks(PAGE) if b.language == "console" for c in b.commands() if c[0] == "pytest"]
    assert commands == [["pytest", "-q", "test_focus.py"]]
    assert "3 passed" in run(workspace, "-m", *commands[0], "-p", "no:cacheprovider")


@pytest.mark.timeout(600)
def test_the_command_on_the_page_draws_a_picture(workspace, blocks):
    (command,) = [c for b in blocks(PAGE) if b.language == "console" for c in b.commands() if c[0] == "mezzotint"]
    run(workspace, "-c", "import sys; from mezzotint.cli import main; sys.exit(main())", *command[1:])
    assert list((workspace / "outputs").rglob("*.png"))


def test_the_package_is_found_by_its_entry_point_without_plugin_flag(workspace):
    package = workspace / "acme-focus"
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    (group, points), *others = project["entry-points"].items()
    assert not others
    # What an installer would write: the distribution's metadata beside its modules.
    info = package / "acme_focus-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = "".join(f"{name} = {module}\n" for name, module in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    shown = run(
        workspace, "-c", "import sys; from mezzotint.cli import main; sys.exit(main())", "nodes", "acme",
        path=[package],
    )  # fmt: skip
    assert "acme.focus@1" in shown


@pytest.mark.slow
def test_the_package_installs(workspace):
    command = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--target", "there", "./acme-focus")
    run(workspace, *command)
    assert (workspace / "there" / "acme_focus" / "focus.py").is_file()
