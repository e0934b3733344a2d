"""What happens in a run, as one typed stream. A terminal, a log and a web page are views of it."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CacheHit",
    "Event",
    "NodeFailed",
    "NodeFinished",
    "NodeRetried",
    "NodeSkipped",
    "NodeStarted",
    "OutputWritten",
    "RunFinished",
    "RunStarted",
    "StepDone",
    "Warned",
]


@dataclasses.dataclass(frozen=True)
class Event:
    """Base of all events."""

    kind: ClassVar[str] = "event"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    def to_json(self) -> dict[str, Any]:
        """The event as JSON; what only lives in this process (previews, exceptions) is left out."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata.get("json", True)}
        return {"event": self.kind, **fields}


@dataclasses.dataclass(frozen=True)
class RunStarted(Event):
    """A run begins: so many steps to do, so many found in the store."""

    run: str
    graph: str
    steps: int
    cached: int


@dataclasses.dataclass(frozen=True)
class CacheHit(Event):
    """A step's result was in the store."""

    node: str
    use: str
    key: str


@dataclasses.dataclass(frozen=True)
class NodeStarted(Event):
    """A node runs now."""

    node: str
    use: str
    key: str


@dataclasses.dataclass(frozen=True)
class StepDone(Event):
    """A long node got on: `done` of `total`. `preview()` makes an Image, if anybody wants to look."""

    node: str
    done: int
    total: int
    preview: Callable[[], Any] | None = dataclasses.field(default=None, metadata={"json": False}, compare=False)


@dataclasses.dataclass(frozen=True)
class NodeFinished(Event):
    """A node gave its outputs: so many bytes of tensors, after so many seconds."""

    node: str
    use: str
    key: str
    seconds: float
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class NodeRetried(Event):
    """A node failed in a way that may pass, and is tried again."""

    node: str
    use: str
    attempt: int
    message: str


@dataclasses.dataclass(frozen=True)
class NodeFailed(Event):
    """A node failed for good."""

    node: str
    use: str
    message: str
    error: BaseException | None = dataclasses.field(default=None, metadata={"json": False}, compare=False)


@dataclasses.dataclass(frozen=True)
class NodeSkipped(Event):
    """A node could not run because another one failed or the run was cancelled."""

    node: str
    use: str
    because: str


@dataclasses.dataclass(frozen=True)
class OutputWritten(Event):
    """An output file is in place, whole."""

    output: str
    path: str
    bytes: int
    cached: bool = False


@dataclasses.dataclass(frozen=True)
class Warned(Event):
    """Something that the user should know and that stops nothing."""

    message: str


@dataclasses.dataclass(frozen=True)
class RunFinished(Event):
    """The end of a run: status is "done", "failed" or "cancelled"."""

    run: str
    status: str
    seconds: float
