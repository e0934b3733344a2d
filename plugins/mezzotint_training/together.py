"""`training.together`: several subjects learnt at once, each with its own word, in one set of layers.

Kumari et al. 2023, section 3.2, joint training: each step sees pictures of every concept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mezzotint import UserError, node
from mezzotint_training.objective import Objective, Part, Task
from mezzotint_training.personal import PersonalObjective

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mezzotint import Context, Weights
    from mezzotint_training.personal_task import PersonalTask

__all__ = ["TogetherObjective", "together"]

_WHERE = "training.together"


@node("training.together")
def together(subjects: Annotated[list[Objective], Field(min_length=1, max_length=100)]) -> Objective:
    """Several subjects of training.personalise learnt at once: one change to the layers, and a word for each.

    The loss is the mean of theirs, and each step has a batch of each.

    subjects: with different words, the same layers and rank, and one denoiser.
    Raises: UserError: an objective of another kind, the same word twice, no word, other layers, another denoiser.
    """
    found: list[PersonalObjective] = []
    for one in subjects:
        if not isinstance(one, PersonalObjective):
            raise UserError(f"{_WHERE}: wanted objectives of training.personalise, got a {type(one).__name__}")
        found.append(one)
    words = [one.word for one in found]
    if "" in words or len({*words}) != len(words):
        raise UserError(f"{_WHERE}: each subject wants a new word of its own, got {', '.join(map(repr, words))}")
    first = found[0]
    for one in found:
        if one.denoiser.patches:
            raise UserError(f"{_WHERE}: wanted the denoiser as it is, got one that was tuned for {one.word!r}")
        if (one.layers, one.rank) != (first.layers, first.rank):
            raise UserError(
                f"{_WHERE}: the subjects train one set of layers; got {list(first.layers)} of rank {first.rank} "
                f"for {first.word!r}, and {list(one.layers)} of rank {one.rank} for {one.word!r}"
            )
        if one.denoiser.source.fingerprint != first.denoiser.source.fingerprint:
            raise UserError(
                f"{_WHERE}: {first.word!r} and {one.word!r} are of two denoisers; give both the same one"
            )
    return TogetherObjective(tuple(found))


@dataclass(frozen=True, eq=False)
class TogetherObjective(Objective):
    """subjects: as in `training.together`."""

    subjects: tuple[PersonalObjective, ...]
    reads_dataset: ClassVar[bool] = False

    def open(self, ctx: Context, reader: Any, seed: int, batch: int) -> TogetherTask:
        opened = [one.open(ctx, reader, seed + number, batch) for number, one in enumerate(self.subjects)]
        # One network for all: the first one's.
        for task in opened[1:]:
            task.unet = opened[0].unet
        return TogetherTask(opened)


class TogetherTask(Task):
    """The tasks of all subjects, over one network."""

    modules: Mapping[str, nn.Module]
    parts: Sequence[Part]

    def __init__(self, tasks: Sequence[PersonalTask]) -> None:
        self.tasks = tasks
        words = {f"words_{number}": task.words for number, task in enumerate(tasks) if task.words is not None}
        self.modules = {**{name: m for name, m in tasks[0].modules.items() if name == "unet"}, **words}
        self.parts = (Part("subject", tuple(self.modules)),)

    def batch(self, step: int, rank: int) -> dict[str, Tensor]:
        drawn = (task.batch(step, rank) for task in self.tasks)
        return {f"{number}/{name}": rows for number, one in enumerate(drawn) for name, rows in one.items()}

    def loss(
        self, batch: Mapping[str, Tensor], part: str, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        losses: list[Tensor] = []
        seen: dict[str, Tensor] = {}
        for number, task in enumerate(self.tasks):
            mine = {name.partition("/")[2]: rows for name, rows in batch.items() if name.startswith(f"{number}/")}
            loss, figures = task.loss(mine, part, generator)
            losses.append(loss)
            seen |= {f"{name}_{number}": value for name, value in figures.items()}
        return sum(losses[1:], losses[0]) / len(losses), seen

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """ "loss", the mean of the subjects', and each one's own figures with its number."""
        each = [task.validate(generator) for task in self.tasks]
        numbered = {f"{name}_{number}": value for number, one in enumerate(each) for name, value in one.items()}
        return {"loss": sum(one["loss"] for one in each) / len(each), **numbered}

    def weights(self) -> dict[str, Weights]:
        from mezzotint_models import pack_words

        rows = {task.objective.word: task.words.rows for task in self.tasks if task.words is not None}
        return {**self.tasks[0].weights(), "words": pack_words(rows)}
