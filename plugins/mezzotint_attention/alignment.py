"""Which token of a source prompt each token of an edited prompt takes the attention of.

Hertz et al. 2022, "Prompt-to-Prompt Image Editing with Cross Attention Control", section 3.2. A mapping is a
matrix [T, T], (token of the source, token of the edit): the edit's map is P_source mapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mezzotint import UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["aligned", "refined", "replaced"]

GAP, MATCH, MISMATCH = 0, 1, -1
"""Scores of the alignment, those of the paper's code."""


def replaced(source: Sequence[Sequence[int]], edit: Sequence[Sequence[int]], length: int) -> Tensor:
    """The mapping of a replacement, [T, T] float32, each row of it summing to 1: no attention is lost.

    source, edit: the columns of each word, in order; as many words in both.
    length: T, tokens of a padded prompt. Words of as many tokens map one to one; of others, each token of the new
    word gets an equal part of all of the old one's. Marks and padding keep their order.
    Raises: UserError: another number of words.
    """
    import torch

    if len(source) != len(edit):
        raise UserError(
            f"replace wants prompts of the same structure, word for word; the source has {len(source)} words and "
            f"the edit {len(edit)}. Take the kind refine, which finds the words that both have"
        )
    mapping = torch.zeros(length, length)
    for old, new in zip(source, edit, strict=True):
        if len(old) == len(new):
            mapping[list(old), list(new)] = 1
        else:
            mapping[torch.tensor(list(old))[:, None], torch.tensor(list(new))[None]] = 1 / len(new)
    old_rest, new_rest = (_others(words, length) for words in (source, edit))
    for i, column in enumerate(old_rest):
        # What the edit has no room for goes to its last token of padding.
        mapping[column, new_rest[min(i, len(new_rest) - 1)] if new_rest else length - 1] = 1
    return mapping


def _others(words: Sequence[Sequence[int]], length: int) -> list[int]:
    """The columns of marks and padding."""
    spelt = {column for word in words for column in word}
    return [column for column in range(length) if column not in spelt]


def refined(source: Sequence[int], edit: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
    """The mapping of a refinement, and which tokens of the edit have one: [T, T] and [T], float32, 0 or 1.

    source, edit: token ids from the start mark to the end mark. A token that is new has 0: its own map counts.
    Padding behind the end keeps its order.
    """
    import torch

    mapping, known = torch.zeros(length, length), torch.zeros(length)
    pairs = aligned(source, edit)
    padding = range(min(length - len(source), length - len(edit)))
    pairs += [(len(source) + i, len(edit) + i) for i in padding]
    for old, new in pairs:
        mapping[old, new] = 1
        known[new] = 1
    return mapping, known


def aligned(source: Sequence[int], edit: Sequence[int]) -> list[tuple[int, int]]:
    """Equal tokens of two prompts that stand opposite each other in their best global alignment.

    Needleman and Wunsch 1970, with 0 for a gap, 1 for equal tokens and -1 for others.
    """
    rows, columns = len(source), len(edit)
    score = [[GAP * (i + j) for j in range(columns + 1)] for i in range(rows + 1)]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            equal = MATCH if source[i - 1] == edit[j - 1] else MISMATCH
            score[i][j] = max(score[i - 1][j - 1] + equal, score[i - 1][j] + GAP, score[i][j - 1] + GAP)
    pairs, i, j = [], rows, columns
    while i and j:
        equal = source[i - 1] == edit[j - 1]
        if score[i][j] == score[i - 1][j - 1] + (MATCH if equal else MISMATCH):
            i, j = i - 1, j - 1
            if equal:
                pairs.append((i, j))
        elif score[i][j] == score[i][j - 1] + GAP:
            j -= 1
        else:
            i -= 1
    return pairs[::-1]
