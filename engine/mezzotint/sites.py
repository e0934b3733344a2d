"""Attention sites: where in a denoiser attention is computed, and what an injector does there.

A realised denoiser with attention has `attention_sites` and `inject`. A patch chooses sites and puts a
function there for as long as it applies:

    @contextmanager
    def apply(self, model, ctx):
        chosen = [site for site in model.attention_sites if site.kind == "self"]
        with model.inject(self.attend, chosen):
            yield model

where `attend(call, attend)` gives the attention's output, by calling what it covers or without it. Functions
stack: the one put there last is called first, and is given the next one as `attend`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mezzotint.predictor import NoiseLevel

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint.ports import Conditioning

__all__ = ["Attend", "AttentionCall", "AttentionSite", "Injector", "Rows", "SiteKind"]

SiteKind = Literal["self", "cross", "joint", "temporal"]


@dataclass(frozen=True)
class AttentionSite:
    """One attention layer.

    name: the layer's path in the network.
    kind: self (queries and keys from the picture), cross (keys from the conditioning), joint (keys from the
        conditioning, and then the picture's own: the last N of them) or temporal.
    part: which part of the U-Net, down, middle or up; "" in a network that has no such parts.
    level: how often the picture was halved there: H // 2**level.
    heads, width: number of heads, and the size of one.
    """

    name: str
    kind: SiteKind
    part: str
    level: int
    heads: int
    width: int


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One computation of attention: softmax(query key^T scale + bias + key_bias) value.

    site: where. query: [B, H, N, D]; key, value: [B, H, M, D], of the model's own type.
    bias: [B or 1, H or 1, N or 1, M]; key_bias: [B, M]; added to the logits; None adds nothing.
    scale: None is 1 / sqrt(D).
    level: the noise level of this evaluation, with the step that it belongs to.
    size: height and width of the picture that the N queries are, row by row; None if they are none.
    """

    site: AttentionSite
    query: Tensor
    key: Tensor
    value: Tensor
    level: NoiseLevel
    bias: Tensor | None = None
    key_bias: Tensor | None = None
    scale: float | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Rows:
    """Whose rows those of one evaluation are: guidance asks about the same samples several times in one batch.

    samples: the number of the sample in its run, for each row. own: whether the row is told what the sample is
    told, and is not what guidance compares with. frames: of a clip; row r is then frame r % frames of
    evaluated row r // frames, in the attention calls.
    """

    samples: tuple[int, ...]
    own: tuple[bool, ...]
    frames: int = 1

    @classmethod
    def of(cls, conditioning: Conditioning | None, batch: int, frames: int = 1) -> Rows:
        """The rows of an evaluation of `batch` rows, from what samplers and guidance note in the conditioning.

        Without a note, all are own, and samples are counted.
        """
        noted = None if conditioning is None else conditioning.extra.get("row")
        if noted is None or len(noted) != batch:
            return cls(tuple(range(batch)), (True,) * batch, frames)
        numbers = [int(number) for number in noted]
        return cls(tuple(n if n >= 0 else -1 - n for n in numbers), tuple(n >= 0 for n in numbers), frames)


Attend = Callable[[AttentionCall], "Tensor"]
Injector = Callable[[AttentionCall, Attend], "Tensor"]
