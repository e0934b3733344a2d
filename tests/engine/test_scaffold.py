import importlib
import json
import subprocess
import sys
import sysconfig
import tomllib
import venv

import pytest

from mezzotint import UserError
from mezzotint.scaffold import new_plugin, plugin_names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acme-nodes", ("acme-nodes", "acme_nodes", "acme")),
        ("Acme.Blur_plugin", ("acme-blur-plugin", "acme_blur_plugin", "acme_blur")),
        ("acme", ("acme", "acme", "acme")),
        ("image-nodes", ("image-nodes", "image_nodes", "image_nodes")),
        ("a", ("a", "a", "a")),
    ],
)
def test_the_module_and_the_namespace_follow_from_the_name(name, expected):
    names = plugin_names(name)
    assert (names.name, names.module, names.namespace) == expected


@pytest.mark.parametrize("name", ["", "-acme", "acme-", "3d", "a b", "../acme", "acme/x", "acmé", "acme\n"])
def test_a_name_that_no_package_can_have_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="is no package name"):
        new_plugin(name, tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["json", "class", "mezzotint", "mezzotint-image"])
def test_a_name_that_hides_another_module_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="which is taken"):
        new_plugin(name, tmp_path / "new")


@pytest.mark.parametrize("name", ["image", "flow"])
def test_a_namespace_of_the_engine_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=f"choose another name, such as 'my-{name}'"):
        new_plugin(name, tmp_path / "new")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty; nothing was written"):
        new_plugin("acme-nodes", tmp_path)
    with pytest.raises(UserError, match="nothing was written"):
        new_plugin("acme-nodes", tmp_path / "mine.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("mezzotint.scaffold._write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        new_plugin("acme-nodes", tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_the_package_has_all_that_it_needs(tmp_path):
    folder = tmp_path / "deep" / "acme"
    written = new_plugin("acme-nodes", folder)
    assert [p.relative_to(folder).as_posix() for p in written] == [
        ".gitignore",
        "README.md",
        "graphs/vignette.json",
        "pyproject.toml",
        "src/acme_nodes/__init__.py",
        "src/acme_nodes/vignette.py",
        "tests/test_vignette.py",
    ]
    assert all(p.is_file() and "$" not in p.read_text() for p in written)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["mezzotint.plugins"] == {"acme": "acme_nodes"}
    graph = json.loads((folder / "graphs/vignette.json").read_text())
    assert graph["nodes"]["dark"]["use"] == "acme.vignette@1"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "new").mkdir()
    assert new_plugin("acme-nodes", tmp_path / "new")


def test_its_own_tests_pass_where_it_lies(tmp_path, monkeypatch):
    folder = tmp_path / "new"
    new_plugin("scaffold-check-nodes", folder)
    monkeypatch.syspath_prepend(str(folder / "src"))
    spec = importlib.util.spec_from_file_location("scaffold_check_test", folder / "tests/test_vignette.py")
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    tests.test_the_corners_are_black_and_the_middle_is_kept()
    tests.test_the_graph_runs()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_installs_is_found_and_passes_its_tests(tmp_path):
    folder = tmp_path / "acme-nodes"
    new_plugin("acme-nodes", folder)
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    paths = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    site = sysconfig.get_path("purelib", vars=paths)
    parent = sysconfig.get_path("purelib")
    with open(f"{site}/parent.pth", "w") as file:
        file.write(f"import site; site.addsitedir({parent!r})\n")

    def run(*command):
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout

    run(sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-build-isolation",
        "-e", str(folder))  # fmt: skip
    listing = "from mezzotint.plugins import *; print([r.nodes for r in plugins_table(load_registry())])"
    assert "acme.vignette" in run(str(python), "-c", listing)
    assert "2 passed" in run(str(python), "-m", "pytest", "-q")
