"""Why a Wasserstein critic: on data that two players do not share, the divergence is flat and its slope vanishes.

Two narrow blobs of the plane, further and further apart, each time with critics trained from nothing. The estimate
of the Jensen-Shannon divergence stays at log 2 and the saturating loss has no gradient, while the Wasserstein
estimate grows with the distance and its gradient keeps its length. Arjovsky and Bottou 2017; Arjovsky et al. 2017.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from mezzotint import Context, Image, Report, node

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mezzotint_families.adversarial import Kind

__all__ = ["Vanishing", "vanishing"]

SPREAD = 0.1  # of a blob
POINTS = 128
Distance = Annotated[float, Field(gt=0, le=100)]


class Vanishing(NamedTuple):
    """report: a row for each distance.
    chart: the two estimates against the distance.
    """

    report: Report
    chart: Image


@node("families.vanishing")
def vanishing(
    ctx: Context,
    *,
    distances: Annotated[list[Distance], Field(min_length=1, max_length=100)] = [0.5, 1.0, 2.0, 4.0],  # noqa: B006
    steps: Annotated[int, Field(ge=1, le=100_000)] = 250,
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
) -> Vanishing:
    """Measure how critics judge two blobs that do not touch, and what they teach the one that should move.

    distances: between the blobs; their spread is 0.1.
    steps: of training, of each critic.
    seed: of the points and of the critics.

    returns: for each distance "divergence", the Jensen-Shannon estimate (at most log 2, 0.693), "wasserstein", and
    the mean length of the gradient at a generated point: "saturating" and "non_saturating" by the first critic,
    "wasserstein_slope" by the second.
    """
    from mezzotint_image import draw_chart

    rows: list[dict[str, float]] = []
    for number, distance in enumerate(distances):
        rows.append(_row(distance, steps, seed))
        ctx.progress(number + 1, len(distances))
    lines = [
        (name, [(row["distance"], row[figure]) for row in rows])
        for name, figure in (("Wasserstein, gradient penalty", "wasserstein"), ("Jensen-Shannon", "divergence"))
    ]
    chart = draw_chart(lines, x="distance of the blobs", y="estimate", title="What a critic measures")
    return Vanishing(Report({"rows": rows, "log2": math.log(2), "steps": steps}), chart)


def _row(distance: float, steps: int, seed: int) -> dict[str, float]:
    import torch

    from mezzotint_families.adversarial import critic_loss

    generator = torch.Generator().manual_seed(seed)
    real, fake = (SPREAD * torch.randn(POINTS, 2, generator=generator) for _ in range(2))
    fake = fake + torch.tensor([distance, 0.0])
    judge = _critic("non_saturating", real, fake, steps, seed)
    measure = _critic("wasserstein", real, fake, steps, seed)
    with torch.no_grad():
        loss = critic_loss("non_saturating", judge(real), judge(fake)).item()
        estimate = -critic_loss("wasserstein", measure(real), measure(fake)).item()
    return {
        "distance": distance,
        "divergence": math.log(2) - loss / 2,
        "wasserstein": estimate,
        "saturating": _slope("saturating", judge, fake),
        "non_saturating": _slope("non_saturating", judge, fake),
        "wasserstein_slope": _slope("wasserstein", measure, fake),
    }


def _critic(kind: Kind, real: Tensor, fake: Tensor, steps: int, seed: int) -> nn.Module:
    """Two hidden layers, trained on the points; the slope of a Wasserstein critic is held about 1 by a penalty."""
    import torch
    from torch import nn

    from mezzotint_families.adversarial import critic_loss, gradient_penalty

    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        critic = nn.Sequential(
            nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
        )
    optimiser = torch.optim.Adam(critic.parameters(), 5e-3, betas=(0.5, 0.9))
    for _ in range(steps):
        loss = critic_loss(kind, critic(real), critic(fake))
        if kind == "wasserstein":
            loss = loss + 10 * gradient_penalty(critic, real, fake, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return critic


def _slope(kind: Kind, critic: nn.Module, fake: Tensor) -> float:
    """Mean length of the gradient of each point's own loss."""
    import torch

    from mezzotint_families.adversarial import generator_loss

    at = fake.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(len(at) * generator_loss(kind, critic(at)), at)
    return slope.norm(dim=1).mean().item()
