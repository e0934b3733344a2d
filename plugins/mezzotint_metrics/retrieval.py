"""Which text finds which picture and the other way round, and pictures in the order of their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from mezzotint import Image, Report, UserError, node
from mezzotint_metrics.features import Features, rows_of, same_network

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["rank", "retrieval"]


class Ranked(NamedTuple):
    """image: the pictures, best first.
    labels: their scores, written out.
    report: "order", the places that they had before, and "scores", in the new order.
    """

    image: Image
    labels: list[str]
    report: Report


@node("metrics.rank")
def rank(image: Image, scores: Report, *, figure: str = "scores") -> Ranked:
    """Put pictures in the order of their scores, the highest first; of equal ones the earlier first.

    image: [B, H, W, C].
    scores: a report that has one number for each picture, such as metrics.clip_score gives.
    figure: the name of these numbers in the report.
    Raises: UserError: no such list of numbers, another number of them than of pictures, one that is not finite.
    Source: Ramesh et al. 2021, section 2.6 (the best of many samples by CLIP).
    """
    import math

    found = scores.data.get(figure)
    if not isinstance(found, list | tuple) or not all(isinstance(value, int | float) for value in found):
        have = ", ".join(sorted(scores.data)) or "nothing"
        raise UserError(f"metrics.rank: the report has no list of numbers {figure!r}; it has {have}")
    if len(found) != len(image.data):
        raise UserError(f"metrics.rank: {len(found)} scores for {len(image.data)} pictures")
    if broken := next((place for place, value in enumerate(found) if not math.isfinite(value)), None):
        raise UserError(f"metrics.rank: score {broken} is {found[broken]}")
    order = sorted(range(len(found)), key=lambda place: -found[place])
    sorted_scores = [float(found[place]) for place in order]
    labels = [f"{score:.1f}" for score in sorted_scores]
    report = Report({"order": order, "scores": sorted_scores})
    return Ranked(Image(image.data[order].contiguous()), labels, report)


@node("metrics.retrieval")
def retrieval(image: Features, text: Features, *, within: Annotated[int, Field(ge=1, le=10_000)] = 5) -> Report:
    """How often a picture finds its own text among all texts, and a text its picture, by cosine.

    image: [N, D], any length of vectors.
    text: [N, D], of the same space; row i belongs to picture i.
    within: also reported: how often it is among this many nearest.

    Of equally near ones none comes first: pictures whose texts are the same find either.
    returns: "image_to_text" and "text_to_image", each with "top1", "within" and the median "rank" from 1 on, and
    "chance", the top1 of a blind guess.
    Raises: UserError: another number of texts, of another width, a vector of zeros, numbers that are not finite.
    """
    import torch

    pictures, texts = rows_of(image, "metrics.retrieval"), rows_of(text, "metrics.retrieval")
    same_network("metrics.retrieval", image.network, text.network, pictures.shape[1], texts.shape[1])
    if len(pictures) != len(texts):
        raise UserError(f"metrics.retrieval: {len(texts)} texts for {len(pictures)} pictures; wanted one for each")
    if not (pictures.norm(dim=1).all() and texts.norm(dim=1).all()):
        raise UserError("metrics.retrieval: an embedding of zeros has no direction")
    near = torch.nn.functional.normalize(pictures, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T
    return Report(
        {
            "image_to_text": _shares(near, within),
            "text_to_image": _shares(near.T, within),
            "within": within,
            "count": len(near),
            "chance": 1 / len(near),
        }
    )


def _shares(near: Tensor, within: int) -> dict[str, Any]:
    """Figures of the rank of the diagonal in each row. Equal up to rounding counts as equal."""
    ranks = 1 + (near > near.diagonal()[:, None] + 1e-9).sum(1)
    return {
        "top1": (ranks == 1).double().mean().item(),
        "within": (ranks <= within).double().mean().item(),
        "rank": ranks.double().quantile(0.5).item(),
    }
