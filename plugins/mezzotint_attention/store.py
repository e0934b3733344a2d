"""How much each place attends to chosen words, gathered while a denoiser is evaluated; no map is kept or made.

Attention is linear in its values. So with values that are 1 at a word's tokens and 0 elsewhere, its output is the
weight that each place gives to that word: the layer's own kernel computes it, and what other injectors changed in
the maps is in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mezzotint import UserError
from mezzotint_attention.injection import Injection, Opened

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Attend, AttentionCall, Context, Predictor
    from mezzotint_attention.injection import Evaluation

__all__ = ["AttentionStore", "Stored", "indicators", "word_mass"]


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionStore(Injection):
    """Watches the cross-attention and keeps, for each place, some words' weight: a mean over heads and layers.

    words: for each, the numbers of its tokens. The maps are those after every injection of a lower order.
    """

    words: tuple[tuple[int, ...], ...] = ()
    order: int = 50

    def open(self, model: Predictor, ctx: Context) -> Stored:
        return Stored(self.words)


class Stored(Opened):
    """What was seen so far: by picture size, the sum [rows, words, h, w] and how many layers and evaluations."""

    def __init__(self, words: tuple[tuple[int, ...], ...]) -> None:
        self.words = words
        self.sums: dict[tuple[int, int], Tensor] = {}
        self.counts: dict[tuple[int, int], int] = {}
        self.own: Tensor | None = None

    def begin(self, evaluation: Evaluation) -> bool:
        import torch

        own = [i for i, mine in enumerate(evaluation.rows.own) if mine]
        frames = evaluation.rows.frames
        self.own = torch.tensor([row * frames + f for row in own for f in range(frames)])
        return bool(own)

    def attend(self, call: AttentionCall, attend: Attend) -> Tensor:
        if call.size is None:
            raise UserError(f"the tokens of {call.site.name!r} are no picture: no map can be drawn of them")
        assert self.own is not None
        seen = word_mass(call, attend, self.words)[self.own.to(call.query.device)]
        seen = seen.reshape(*seen.shape[:-1], *call.size)
        self.sums[call.size] = self.sums[call.size] + seen if call.size in self.sums else seen
        self.counts[call.size] = self.counts.get(call.size, 0) + 1
        return attend(call)

    def maps(self, size: tuple[int, int]) -> Tensor:
        """The mean over all layers, each brought to `size`: [rows, words, *size], in 0..1.

        Raises: UserError: no layer was reached.
        """
        from torch.nn import functional

        if not self.sums:
            raise UserError("the attention store has seen no layer: its window or its sites hold nowhere")
        brought = [
            found if there == size else functional.interpolate(found, size=size, mode="bilinear")
            for there, found in self.sums.items()
        ]
        return sum(brought[1:], brought[0]) / sum(self.counts.values())


def indicators(words: tuple[tuple[int, ...], ...], tokens: int, like: Tensor) -> Tensor:
    """[words, tokens]: 1 at each word's tokens, 0 elsewhere; in the type and place of `like`."""
    import torch

    found = torch.zeros(len(words), tokens, dtype=like.dtype, device=like.device)
    for row, numbers in zip(found, words, strict=True):
        row[list(numbers)] = 1
    return found


def word_mass(call: AttentionCall, attend: Attend, words: tuple[tuple[int, ...], ...]) -> Tensor:
    """The weight that each query gives to each word, mean over heads: [B, words, N], float32 or wider.

    Of a joint layer's keys the text's come first, so that tokens have the same numbers there.
    """
    import torch

    batch, heads, tokens, width = call.value.shape
    found = []
    for first in range(0, len(words), width):
        some = words[first : first + width]
        value = call.value.new_zeros(batch, heads, tokens, width)
        value[..., : len(some)] = indicators(some, tokens, call.value).T
        out = attend(replace(call, value=value))[..., : len(some)]
        found.append(out.to(torch.promote_types(out.dtype, torch.float32)).mean(1))
    return torch.cat(found, dim=-1).transpose(1, 2)
