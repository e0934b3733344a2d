"""Packages that replace themselves in sys.modules can be imported by two threads at once."""

from __future__ import annotations

import importlib
import importlib.resources
import subprocess
import sys
import threading

import pytest

from mezzotint.lazy_packages import forward_replaced

pytestmark = pytest.mark.timeout(60)

PACKAGE = """
import sys, time
from types import ModuleType

class Lazy(ModuleType):
    def __getattr__(self, name):
        if name != "Model":
            raise AttributeError(name)
        return "made late"

time.sleep(0.3)
lazy = Lazy(__name__)
lazy.__path__, lazy.__spec__, lazy.__file__ = __path__, __spec__, __file__
sys.modules[__name__] = lazy
"""


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    name = f"replaced_{request.node.name.partition('[')[0]}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(PACKAGE)
    (tmp_path / name / "data.txt").write_text("kept")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield name
    sys.modules.pop(name, None)


def imported_twice(name: str) -> list[str]:
    found, begun = [], threading.Event()

    def get(wait: bool) -> None:
        if wait:
            begun.wait()
            while name not in sys.modules:
                pass
        begun.set()
        space: dict = {}
        try:
            exec(f"from {name} import Model", space)
            found.append(space["Model"])
        except ImportError as error:
            found.append(f"ImportError: {error}")

    threads = [threading.Thread(target=get, args=(wait,)) for wait in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_without_help_the_second_thread_gets_what_was_replaced(package):
    assert sorted(imported_twice(package))[0].startswith("ImportError: cannot import name 'Model'")


def test_with_it_both_threads_get_the_names(package):
    forward_replaced(frozenset((package,)))
    assert imported_twice(package) == ["made late", "made late"]


def test_the_package_is_the_same_otherwise(package):
    forward_replaced(frozenset((package,)))
    module = importlib.import_module(package)
    assert sys.modules[package] is module and type(module).__name__ == "Lazy"
    assert importlib.resources.files(package).joinpath("data.txt").read_text() == "kept"
    with pytest.raises(ImportError, match="cannot import name 'Other'"):
        exec(f"from {package} import Other", {})


def test_asking_twice_adds_one_finder(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    names = frozenset(("some_package",))
    forward_replaced(names)
    count = len(sys.meta_path)
    forward_replaced(names)
    assert len(sys.meta_path) == count


def test_a_run_sees_to_diffusers_and_transformers_before_its_threads_begin():
    code = (
        "import sys, mezzotint.execute\n"
        "from mezzotint.lazy_packages import LAZY, _Finder\n"
        "assert any(isinstance(f, _Finder) and f.names == LAZY for f in sys.meta_path)\n"
        "assert not LAZY & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
