"""Ctrl-C and SIGTERM: the first asks the run to stop at its next step, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupt"]

_WORDS = b"\nstopping at the next step, what is finished is kept; press Ctrl-C again to stop at once\n"


class Interrupt:
    """While it is entered, signals set `event` in place of raising KeyboardInterrupt. asked: whether one came."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.event = threading.Event()
        self.asked = False
        self._quiet = quiet
        self._before: dict[int, Any] = {}

    def fresh_event(self) -> threading.Event:
        """An event for the next run, set already if a signal has come; a run may set its own for other reasons."""
        self.event = threading.Event()
        if self.asked:
            self.event.set()
        return self.event

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(130)
        self.asked = True
        self.event.set()
        if not self._quiet:
            os.write(2, _WORDS)  # print is not safe in a signal handler
