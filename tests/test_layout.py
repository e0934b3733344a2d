"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(p for p in (ROOT / "plugins").iterdir() if (p / "__init__.py").exists())
OURS = {p.name for p in PLUGINS}
FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py", "base.py", "misc.py"}


def sources(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*.py") if "__pycache__" not in p.parts]


def imports(path: Path) -> list[str]:
    """Modules that a file imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found


@pytest.mark.parametrize("root", ["engine", "kernels", "plugins", "graphs"])
def test_source_roots_are_not_packages(root):
    assert not (ROOT / root / "__init__.py").exists()


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda p: p.name)
def test_bundled_plugins_use_only_what_a_strangers_plugin_can(plugin):
    for path in sources(plugin):
        for module in imports(path):
            top = module.partition(".")[0]
            if top == "mezzotint":
                assert module in ("mezzotint", "mezzotint.testing"), f"{path}: {module}"
            elif top == "mezzotint_kernels":
                # A sampler runs where torch is not imported yet, so the rows have a module of their own.
                assert module.count(".") <= 1, f"{path}: {module}"
            elif top in OURS and top != plugin.name:
                assert module == top, f"{path}: {module}"


def test_the_engine_knows_no_plugin():
    for path in sources(ROOT / "engine"):
        assert not [m for m in imports(path) if m.partition(".")[0] in OURS], path


def test_the_kernels_know_neither_the_engine_nor_a_plugin():
    for path in sources(ROOT / "kernels"):
        tops = {m.partition(".")[0] for m in imports(path)}
        assert not tops & {"mezzotint", *OURS}, path


def test_no_file_is_a_drawer_for_odds_and_ends():
    for root in ("engine", "kernels", "plugins", "tests"):
        assert not [p for p in sources(ROOT / root) if p.name in FORBIDDEN_NAMES]


def test_every_module_says_what_it_is():
    for root in ("engine", "kernels", "plugins"):
        for path in sources(ROOT / root):
            text = path.read_text()
            assert not text.strip() or ast.get_docstring(ast.parse(text)), path


def test_no_file_is_longer_than_anyone_reads():
    for root in ("engine", "kernels", "plugins"):
        for path in sources(ROOT / root):
            assert len(path.read_text().splitlines()) <= 500, path


def test_nothing_evaluates_strings_or_loads_pickles():
    for root in ("engine", "kernels", "plugins"):
        for path in sources(ROOT / root):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func)
                    if (path.name, name) == ("loading.py", "exec"):
                        continue  # a one-file plugin is code that the caller named
                    assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "torch.load"), (
                        f"{path}: {name}"
                    )


@pytest.mark.parametrize("heavy", ["torch", "networkx", "pydantic", "numpy"])
def test_importing_the_engine_imports_nothing_heavy(heavy):
    names = "mezzotint.node, mezzotint.hookimpl, mezzotint.Image"
    code = f"import sys, mezzotint; {names}; assert {heavy!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listing_all_nodes_imports_no_torch():
    code = (
        "import sys; from mezzotint.plugins import load_registry; "
        "assert load_registry(installed=False).specs(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
