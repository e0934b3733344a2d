"""Loaders take turns: one thread at a time is in a loader, in all runs of a process.

Loaders import the large libraries (diffusers, transformers), lazily and piece by piece. Modules of such a library
import each other in circles; where two threads enter a circle at different places, Python's import lock breaks the
tie by handing one of them a module that is not complete yet, and a name that will be there is an ImportError.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LOADERS", "Turns"]


class Turns:
    """A lock that its holder can give up for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine = threading.local()

    @property
    def held(self) -> bool:
        """Whether it is this thread's turn."""
        return getattr(self._mine, "held", False)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a turn, and have it while the block runs."""
        with self._lock:
            self._mine.held = True
            try:
                yield
            finally:
                self._mine.held = False

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Let others have the turn while the block runs, if it is this thread's; then wait for it again.

        For a loader that asks for another model: whoever has that one may want a turn before giving it back.
        """
        if not self.held:
            yield
            return
        self._mine.held = False
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            self._mine.held = True


LOADERS = Turns()
"""The turns of all loaders: what a process has imported is one for all of its runs."""
