"""`training.train`: the one node that trains any objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from mezzotint import Context, Dataset, Image, Report, UserError, Weights, node
from mezzotint_training.objective import Objective, Task
from mezzotint_training.recipe import OptimiserName

if TYPE_CHECKING:
    from mezzotint_training.running import Session

__all__ = ["train"]

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Steps = Annotated[int, Field(ge=0, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Trained(NamedTuple):
    """weights: the averaged weights; of several networks as one value.
    report: the curve and the validation's figures, by step.
    curve: the losses as a picture.
    sheet: what the objective shows of what was learnt; the curve, if it shows nothing.
    """

    weights: Weights
    report: Report
    curve: Image
    sheet: Image


@node("training.train", device=True)
def train(
    ctx: Context,
    objective: Objective,
    dataset: Dataset | None = None,
    init: Weights | None = None,
    *,
    partial_init: bool = False,
    steps: Count = 1000,
    batch: Count = 32,
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3,
    optimiser: OptimiserName = "adamw",
    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = [0.9, 0.99],  # noqa: B006
    weight_decay: Share = 0.01,
    warm_up: Steps = 50,
    cool_down: Share = 0.25,
    clip: Annotated[float, Field(ge=0)] = 1.0,
    ema: Decay = 0.99,
    accumulate: Count = 1,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    validate_every: Steps = 0,
    patience: Steps = 0,
    seed: Seed = 0,
    report_every: Count = 50,
) -> Trained:
    """Train what an objective describes. A run that was stopped or killed goes on, and ends in the same bits.

    A loss or gradient that is not finite stops it, with the last good state kept.

    objective: networks and loss.
    dataset: what to learn from; none for an objective that holds what it learns from itself.
    init: weights of the same networks to start from.
    partial_init: take of `init` what fits by name and shape; the report's "init" says what did not.
    steps: of training; in each, every part of the objective has its turns.
    batch: items of a batch.
    learning_rate: of the plateau between the two slopes below; a part may have its own.
    optimiser: muon is for hidden matrices and convolutions, with AdamW for the rest.
    betas: decays of Adam's moments; rmsprop takes the second, sgd its momentum from the first.
    weight_decay: decoupled for adamw and muon, added to the gradient for the others.
    warm_up: steps of linear rise.
    cool_down: share of the steps, at the end, of linear fall to 0.
    clip: largest gradient norm of a part; 0 is none.
    ema: decay of the average of the weights, which is what is kept; 0 keeps the last ones.
    accumulate: batches whose mean gradient makes one step.
    precision: of the losses' computation; auto is bfloat16 on GPUs that have it, else float32.
    validate_every: steps between two validations; 0 is none.
    patience: validations without a lower loss until training stops and takes the best weights; 0 is never.
    seed: of the weights at the start, of the batches and of all noise.
    report_every: steps between two rows of the curve.

    Raises: UserError: the objective cannot use the data set, `init` does not fit, or the loss is not finite.
    """
    from mezzotint_training.curve import draw_curve
    from mezzotint_training.init import start_from
    from mezzotint_training.recipe import Recipe
    from mezzotint_training.running import Session
    from mezzotint_training.trainer import Trainer

    if patience and not validate_every:
        raise UserError("training.train: patience counts validations; set validate_every as well")
    reader = _reader(ctx, objective, dataset)
    recipe = Recipe(
        steps=steps, learning_rate=learning_rate, optimiser=optimiser, betas=(betas[0], betas[1]),
        weight_decay=weight_decay, warm_up=warm_up, cool_down=cool_down, clip=clip, ema=ema, seed=seed,
        accumulate=accumulate, precision=_precision(precision, ctx.device),
    )  # fmt: skip
    task = _open(objective, ctx, reader, seed, batch)
    started = None if init is None else start_from(task.modules, init, partial=partial_init)
    trainer = Trainer(task, recipe, device=ctx.device)
    session = Session(
        ctx, trainer, validate=getattr(task, "validate", None),
        log_every=report_every, validate_every=validate_every, patience=patience,
    )  # fmt: skip
    if hasattr(task, "sheet"):
        session.preview = lambda: _sheet(session) or draw_curve(session.curve, session.validated)
    session.run()
    return _trained(session, started)


def _reader(ctx: Context, objective: Objective, dataset: Dataset | None) -> Any:
    if not objective.reads_dataset:
        if dataset is not None:
            raise UserError("training.train: this objective holds what it learns from; leave the data set out")
        return None
    if dataset is None:
        raise UserError("training.train: wanted a data set, got none; this objective learns from one")
    reader = ctx.open_dataset(dataset)
    if not len(reader):
        raise UserError("training.train: the data set is empty")
    return reader


def _precision(wanted: str, device: str) -> Literal["float32", "bfloat16"]:
    import torch

    if wanted == "auto":
        return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


def _open(objective: Objective, ctx: Context, reader: Any, seed: int, batch: int) -> Task:
    import torch

    # Layers draw their first weights from torch's own generator.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return objective.open(ctx, reader, seed, batch)


def _trained(session: Session, started: Mapping[str, Any] | None) -> Trained:
    import torch

    from mezzotint_training.checkpoint import join
    from mezzotint_training.curve import draw_curve

    trainer = session.trainer
    with trainer.averaged(), torch.no_grad():
        weights = trainer.task.weights()
        sheet = _sheet(session)
    curve = draw_curve(session.curve, session.validated)
    return Trained(
        join(weights) if isinstance(weights, Mapping) else weights,
        Report(
            {
                "steps": trainer.step,
                "stopped_early": session.stopped_early,
                "parameters": sum(p.numel() for p in trainer.parameters.values()),
                "curve": session.curve,
                "validation": session.validated,
                **({} if started is None else {"init": dict(started)}),
            }
        ),
        curve,
        curve if sheet is None else sheet,
    )


def _sheet(session: Session) -> Image | None:
    """The objective's picture, if it has one."""
    from mezzotint_training.randomness import step_generator

    trainer = session.trainer
    show = getattr(trainer.task, "sheet", None)
    generator = step_generator(trainer.recipe.seed, -2, device=trainer.device)
    picture: Image | None = None if show is None else show(generator)
    return picture
