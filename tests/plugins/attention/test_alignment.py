"""Which token stands for which: sums, known cases, and the best alignment against all alignments."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch

from mezzotint import UserError
from mezzotint_attention.alignment import aligned, refined, replaced


@pytest.mark.parametrize(
    ("source", "edit"),
    [
        ([[1], [2], [3]], [[1], [2], [3]]),
        ([[1], [2, 3], [4]], [[1], [2], [3]]),
        ([[1], [2], [3]], [[1], [2, 3, 4], [5]]),
        ([[1], [2], [3, 4, 5, 6]], [[1, 2, 3], [4], [5, 6]]),
        ([[0], [1]], [[0], [1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_a_replacement_loses_no_attention(source: list[list[int]], edit: list[list[int]]) -> None:
    mapping = replaced(source, edit, 8)
    torch.testing.assert_close(mapping.sum(1), torch.ones(8))
    maps = torch.rand(5, 8, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close((maps @ mapping.double()).sum(1), torch.ones(5, dtype=torch.float64))


def test_words_of_one_length_are_replaced_token_by_token() -> None:
    assert torch.equal(replaced([[1], [2, 3]], [[1], [2, 3]], 6), torch.eye(6))


def test_each_token_of_a_longer_word_gets_an_equal_part_and_what_follows_is_moved() -> None:
    mapping = replaced([[1], [2], [3]], [[1], [2, 3], [4]], 6)
    wanted = torch.zeros(6, 6)
    wanted[0, 0] = wanted[1, 1] = wanted[3, 4] = wanted[4, 5] = wanted[5, 5] = 1
    wanted[2, 2] = wanted[2, 3] = 0.5
    assert torch.equal(mapping, wanted)


def test_prompts_of_another_number_of_words_are_sent_to_refine() -> None:
    with pytest.raises(UserError, match=r"the source has 2 words and the edit 3\. Take the kind refine"):
        replaced([[1], [2]], [[1], [2], [3]], 6)


def score(source: tuple[int, ...], edit: tuple[int, ...]) -> int:
    """The best score of all alignments, each one tried."""
    if not source or not edit:
        return 0
    equal = 1 if source[0] == edit[0] else -1
    return max(equal + score(source[1:], edit[1:]), score(source[1:], edit), score(source, edit[1:]))


@pytest.mark.parametrize("length", [0, 1, 3, 4])
def test_equal_tokens_are_paired_in_order_and_as_many_as_any_alignment_can(length: int) -> None:
    for source in product((1, 2, 3), repeat=length):
        edit = (2, 1, 2, 3)
        pairs = aligned(source, edit)
        assert all(source[i] == edit[j] for i, j in pairs)
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
        # Unequal pairs cost more than gaps: the score is the number of equal pairs.
        assert len(pairs) == score(source, edit)


def test_a_word_that_comes_in_keeps_its_own_map_and_all_others_move() -> None:
    # < a star > pad pad   and   < a red star > pad
    mapping, known = refined([0, 5, 6, 1], [0, 5, 7, 6, 1], 6)
    assert known.tolist() == [1, 1, 0, 1, 1, 1]
    assert mapping.nonzero().tolist() == [[0, 0], [1, 1], [2, 3], [3, 4], [4, 5]]


def test_a_word_that_goes_leaves_the_others_theirs() -> None:
    mapping, known = refined([0, 5, 7, 6, 1], [0, 5, 6, 1], 6)
    assert known.tolist() == [1, 1, 1, 1, 1, 0]
    assert mapping.nonzero().tolist() == [[0, 0], [1, 1], [3, 2], [4, 3], [5, 4]]
