"""Loaders take turns in all runs of a process, and one that asks for another model holds up nobody."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from mezzotint.context import Context
from mezzotint.pool import ModelPool
from mezzotint.services import StepServices
from mezzotint.turns import LOADERS, Turns
from mezzotint.values import Recipe, Source

pytestmark = pytest.mark.timeout(60)


class Registry:
    def __init__(self, loaders: dict[str, Any]) -> None:
        self.loaders = loaders

    def resolve_source(self, uri: str) -> None:
        return None


class Settings:
    resolved_device, dtype, timeout = "cpu", "float32", None


class Runtime:
    settings = Settings()

    def __init__(self, loaders: dict[str, Any]) -> None:
        self.registry = Registry(loaders)
        self.pool = ModelPool(10**9)


class Spec:
    id, timeout = "tests.node", None


def context(runtime: Runtime) -> Context:
    services = StepServices(None, Spec(), runtime, None, lambda event: None, lambda error: None)  # type: ignore[arg-type]
    return Context(services)


def recipe(loader: str, name: str = "") -> Recipe:
    return Recipe(Source("uri", "/path", f"{loader}{name}"), loader, {})


def together(*tasks: Any) -> None:
    """Run them at once, each in a thread; raise what one of them raises."""
    start, errors = threading.Barrier(len(tasks)), []

    def run(task: Any) -> None:
        start.wait()
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "they wait for each other"
    if errors:
        raise errors[0]


def test_no_two_loaders_run_at_once_in_two_runtimes():
    inside, most = [], []

    def loader(recipe, ctx):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return object()

    contexts = [context(Runtime({"tests.load": loader})) for _ in range(4)]
    together(*(lambda c=c, i=i: c.realise(recipe("tests.load", str(i))) for i, c in enumerate(contexts)))
    assert most == [1, 1, 1, 1]


def test_two_loaders_that_each_want_a_model_which_another_thread_loads_come_to_an_end():
    begun = threading.Barrier(2)

    def outer(recipe, ctx):
        return ctx.realise(Recipe(Source("uri", "/path", "shared"), "tests.inner", {}))

    def inner(recipe, ctx):
        time.sleep(0.05)
        return object()

    runtime = Runtime({"tests.outer": outer, "tests.inner": inner})
    found: list[Any] = []

    def ask(name: str) -> None:
        begun.wait()
        found.append(context(runtime).realise(recipe("tests.outer", name)))

    together(lambda: ask("a"), lambda: ask("b"))
    assert len(found) == 2 and found[0] is found[1]
    assert not LOADERS.held


def test_a_turn_ends_with_an_error_too():
    turns = Turns()
    with pytest.raises(KeyError), turns.taken(), turns.given_up():
        assert not turns.held
        raise KeyError("x")
    together(lambda: turns.taken().__enter__())
    assert not turns.held
