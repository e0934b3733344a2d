"""The motion model of VIDM as a predictor that is told, for each frame, what came before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mezzotint import Conditioning, NoiseLevel, Patch, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Context, Predictor
    from mezzotint_video.frame_told import PastFrames

__all__ = ["ShownPast", "ShownPastPredictor"]


@dataclass(frozen=True, eq=False)
class ShownPast(Patch):
    """The innermost patch of a motion model: guidance compares with less words, never with another past."""

    @contextmanager
    def apply(self, model: Predictor, ctx: Context) -> Iterator[Predictor]:
        yield ShownPastPredictor(model)


class ShownPastPredictor:
    """Adds to what its model is told the frames that `show_past` was last called with.

    Predictors around it hand its other attributes on, so that a run reaches `show_past` through them.
    """

    def __init__(self, model: Predictor) -> None:
        self.model: Any = model
        self.schedule = model.schedule
        self._past: PastFrames | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def show_past(self, past: PastFrames) -> None:
        """From now on, predict the frame that follows these."""
        self._past = past

    def predict(self, x: Tensor, level: NoiseLevel, conditioning: Conditioning | None) -> Prediction:
        """Raises: UserError: no words, or another number of them than of clips."""
        from mezzotint_video.frame_told import told_frame

        assert self._past is not None, "show_past comes first"
        told = told_frame(conditioning or Conditioning(), self._past, x.shape[0])
        made: Prediction = self.model.predict(x, level, told)
        return made
