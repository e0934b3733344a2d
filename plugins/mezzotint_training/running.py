"""A trainer inside a node: progress, previews, saved state, cancelling, and the curves for the report."""

from __future__ import annotations

import time
from collections.abc import Callable

from mezzotint import Cancelled, Context, Image
from mezzotint_training.trainer import Callbacks, Trainer

__all__ = ["curve_sheet", "train"]


def train(
    ctx: Context,
    trainer: Trainer,
    *,
    preview: Callable[[], Image] | None = None,
    log_every: int = 50,
    save_seconds: float = 60.0,
) -> list[dict[str, float]]:
    """Run a trainer to its end and give its curve: mean figures of every `log_every` steps.

    A run that is cancelled or killed goes on from the last state that it saved, and ends in the same bits.
    `preview` is called with the averaged weights in the modules, and only if somebody looks.
    """
    curve: list[dict[str, float]] = []
    state = ctx.resume()
    if state is not None:
        trainer.restore(state["tensors"], state["meta"])
        curve = list(state["curve"])
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        tensors, meta = trainer.state()
        ctx.save_state({"tensors": tensors, "meta": meta, "curve": curve})
        saved = time.monotonic()

    def look() -> Image:
        assert preview is not None
        with trainer.averaged():
            return preview()

    def on_step(step: int, figures: dict[str, float]) -> None:
        figures.pop("seconds", None)  # the one figure that a second run would not repeat
        curve.append({"step": step, **{name: round(value, 6) for name, value in figures.items()}})
        # Saved only where the sums of figures are empty, so that a resumed run reports the same curve.
        if time.monotonic() - saved > save_seconds:
            save()
        try:
            ctx.progress(step, trainer.recipe.steps, look if preview is not None else None)
        except Cancelled:
            save()
            raise

    trainer.run(Callbacks(on_step=on_step, log_every=min(log_every, max(trainer.recipe.steps, 1))))
    return curve


def curve_sheet(curve: list[dict[str, float]], name: str = "loss", size: tuple[int, int] = (480, 240)) -> Image:
    """A figure over the steps as a picture [1, H, W, 3], logarithmic upwards, the last value in words."""
    import math

    import numpy
    import torch
    from PIL import Image as Pillow
    from PIL import ImageDraw

    width, height = size
    picture = Pillow.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    points = [(row["step"], math.log(row[name])) for row in curve if row.get(name, 0) > 0]
    if points:
        steps, values = zip(*points, strict=True)
        low, high = min(values), max(max(values), min(values) + 1e-6)
        right, down = (width - 40) / max(steps), (height - 40) / (high - low)
        across = [(20 + right * step, 20 + down * (high - value)) for step, value in points]
        pen.line(across, fill=(44, 84, 222), width=2)
        pen.text((24, 6), f"{name} {math.exp(values[-1]):.4g} after {steps[-1]} steps", fill="black")
    pen.rectangle((19, 19, width - 20, height - 20), outline=(160, 160, 160))
    return Image(torch.from_numpy(numpy.asarray(picture).copy())[None].float() / 255)
