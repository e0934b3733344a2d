"""Small nodes for tests of the command line: numbers, slow nodes, nodes that fail or never end."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mezzotint import Context, hookimpl, node


def log(word: str) -> None:
    """Tell the test that a node ran."""
    path = os.environ.get("ARITH_LOG")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(word + "\n")


@node("arith.add")
def add(a: float, b: float = 0.0) -> float:
    """The sum.

    a: one number.
    b: the other one.
    """
    log(f"add {a:g} {b:g}")
    return a + b


@node("arith.slow")
def slow(
    ctx: Context, value: float, *, steps: Annotated[int, Field(ge=1, le=10_000)] = 10, pause: float = 0.05
) -> float:
    """The value, after a while; it keeps its state at every step.

    value: given back.
    steps: how many.
    pause: seconds for each.
    """
    state = ctx.resume() or {"done": 0}
    log(f"slow from {state['done']}")
    for step in range(int(state["done"]), steps):
        time.sleep(pause)
        ctx.save_state({"done": step + 1})
        log(f"step {step + 1}")
        ctx.progress(step + 1, steps)
    return value


@node("arith.stubborn")
def stubborn(value: float) -> float:
    """Never ends, and never looks whether it should.

    value: anything.
    """
    log("stubborn")
    while True:
        time.sleep(0.05)


@node("arith.divide")
def divide(a: float, b: float) -> float:
    """A quotient; fails where b is 0.

    a: what is divided.
    b: by what.
    """
    log(f"divide {a:g} {b:g}")
    return a / b


@node("arith.text")
def text(words: str, times: int = 1) -> str:
    """Words, repeated.

    words: any.
    times: how often.
    """
    log(f"text {words}")
    return " ".join([words] * times)


@node("arith.read")
def read(file: Path) -> str:
    """What a text file says.

    file: the file.
    """
    return file.read_text()


@hookimpl
def register_nodes(register):
    for function in (add, slow, stubborn, divide, text, read):
        register(function)
