"""Ranking by scores, and retrieval both ways."""

from __future__ import annotations

import pytest
import torch

from mezzotint import Image, Report, UserError
from mezzotint.testing import check_node
from mezzotint_metrics.features import Features
from mezzotint_metrics.retrieval import best_of, rank, retrieval


def image_of(*values: float) -> Image:
    return Image(torch.tensor(values)[:, None, None, None].expand(-1, 2, 2, 3).contiguous())


def test_pictures_come_in_the_order_of_their_scores_and_equal_ones_stay() -> None:
    got = check_node(rank, image=image_of(0.1, 0.2, 0.3, 0.4), scores=Report({"scores": [5.0, 7.0, 5.0, 9.04]}))
    assert got["report"].data == {"order": [3, 1, 0, 2], "scores": [9.04, 7.0, 5.0, 5.0]}
    assert got["image"].data[:, 0, 0, 0].tolist() == pytest.approx([0.4, 0.2, 0.1, 0.3])
    assert got["labels"] == ["9.0", "7.0", "5.0", "5.0"]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"scores": [1.0]}, "1 scores for 2 pictures"),
        ({"other": [1.0, 2.0]}, "no list of numbers 'scores'; it has other"),
        ({"scores": [1.0, float("nan")]}, "score 1 is nan"),
        ({"scores": [float("inf"), 1.0]}, "score 0 is inf"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rank(image_of(0.1, 0.2), Report(scores))


def test_the_shares_are_those_counted_by_hand() -> None:
    # Rows are pictures. Picture 0 is nearest to text 1; text 2 is nearest to picture 1.
    near = torch.tensor([[0.8, 0.9, 0.1], [0.2, 0.7, 0.6], [0.0, 0.1, 0.5]])
    # Orthonormal texts and pictures of any length have `near` as their cosines, up to each row's length.
    rest = (1 - (near / 2).square().sum(1, keepdim=True)).sqrt()
    image, text = torch.cat((near / 2, rest), 1), torch.eye(3, 4)
    got = check_node(retrieval, image=Features(image), text=Features(3 * text), within=2)["report"].data
    assert got["image_to_text"] == {"top1": pytest.approx(2 / 3), "within": 1.0, "rank": 1.0}
    assert got["text_to_image"] == {"top1": pytest.approx(1 / 3), "within": 1.0, "rank": 2.0}
    assert got["count"] == 3 and got["chance"] == pytest.approx(1 / 3)


def test_the_same_text_twice_is_found_by_both_of_its_pictures() -> None:
    image = torch.tensor([[1.0, 0.1], [1.0, 0.1], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert retrieval(Features(image), Features(text)).data["image_to_text"]["top1"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (Features(torch.ones(3, 2)), "3 texts for 2 pictures"),
        (Features(torch.ones(2, 3)), "2 and 3 wide"),
        (Features(torch.zeros(2, 2)), "embedding of zeros"),
        (Features(torch.ones(2, 2), "b"), "of 'a' and of 'b'"),
    ],
)
def test_embeddings_that_cannot_be_compared_are_refused(text: Features, message: str) -> None:
    with pytest.raises(UserError, match=message):
        retrieval(Features(torch.ones(2, 2), "a"), text)


def test_of_the_pictures_of_each_text_the_best_is_kept_and_of_equals_the_first() -> None:
    images = [image_of(0.1, 0.2, 0.3), image_of(0.4, 0.5, 0.6), image_of(0.7, 0.8, 0.9)]
    scores = [Report({"scores": list(row)}) for row in ([1.0, 5.0, 2.0], [3.0, 4.0, 2.0], [2.0, 6.0, 1.0])]
    got = check_node(best_of, images=images, scores=scores)["image"]
    assert got.data[:, 0, 0, 0].tolist() == pytest.approx([0.4, 0.8, 0.3])


def test_candidates_that_do_not_belong_together_are_refused() -> None:
    one, two = image_of(0.1), image_of(0.1, 0.2)
    with pytest.raises(UserError, match="got 1 reports for 2"):
        best_of([one, one], [Report({"scores": [1.0]})])
    with pytest.raises(UserError, match=r"batches of one shape, got \[1, 2, 2, 3\], \[2, 2, 2, 3\]"):
        best_of([one, two], [Report({"scores": [1.0]}), Report({"scores": [1.0, 2.0]})])
    with pytest.raises(UserError, match="2 scores for 1 pictures"):
        best_of([one], [Report({"scores": [1.0, 2.0]})])
