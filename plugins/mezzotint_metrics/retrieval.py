"""Which text finds which picture and the other way round, and pictures in the order of their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from mezzotint import Image, Report, UserError, node
from mezzotint_metrics.features import Features, rows_of, same_network

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["best_of", "rank", "retrieval"]


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
    found = _scores("metrics.rank", scores, figure, len(image.data))
    order = sorted(range(len(found)), key=lambda place: -found[place])
    sorted_scores = [float(found[place]) for place in order]
    labels = [f"{score:.1f}" for score in sorted_scores]
    report = Report({"order": order, "scores": sorted_scores})
    return Ranked(Image(image.data[order].contiguous()), labels, report)


@node("metrics.best_of")
def best_of(images: list[Image], scores: list[Report], *, figure: str = "scores") -> Image:
    """Of several pictures of each text the one with the highest score; of equal ones the first.

    images: [B, H, W, C] each: picture i of each belongs to text i.
    scores: for each of `images` a report with one number for each picture, such as metrics.clip_score gives.
    figure: the name of these numbers in the reports.
    Raises: UserError: no pictures, batches of other shapes, another number of reports, scores that do not fit.
    Source: Ramesh et al. 2021, section 2.6.
    """
    import torch

    if not images or len(images) != len(scores):
        raise UserError(
            f"metrics.best_of: wanted scores for each of some pictures, got {len(scores)} reports "
            f"for {len(images)}"
        )
    shapes = sorted({tuple(image.data.shape) for image in images})
    if len(shapes) > 1:
        raise UserError(
            f"metrics.best_of: wanted batches of one shape, got {', '.join(map(str, map(list, shapes)))}"
        )
    count = shapes[0][0]
    found = [_scores("metrics.best_of", report, figure, count) for report in scores]
    best = torch.tensor(found, dtype=torch.float64).argmax(dim=0)
    return Image(torch.stack([image.data for image in images])[best, torch.arange(count)].contiguous())


def _scores(node: str, report: Report, figure: str, count: int) -> list[float]:
    """The finite numbers under `figure`, one for each picture."""
    import math

    found = report.data.get(figure)
    if not isinstance(found, list | tuple) or not all(isinstance(value, int | float) for value in found):
        have = ", ".join(sorted(report.data)) or "nothing"
        raise UserError(f"{node}: the report has no list of numbers {figure!r}; it has {have}")
    if len(found) != count:
        raise UserError(f"{node}: {len(found)} scores for {count} pictures")
    broken = next((place for place, value in enumerate(found) if not math.isfinite(value)), None)
    if broken is not None:
        raise UserError(f"{node}: score {broken} is {found[broken]}")
    return [float(value) for value in found]


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
