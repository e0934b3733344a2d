"""What a sample costs: parameters and arithmetic, which are the same everywhere, and time, which is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mezzotint import Conditioning, Context, Report, Weights, node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["cost", "time"]

Steps = Annotated[int, Field(ge=1, le=1000)]
Count = Annotated[int, Field(ge=1, le=4096)]


@node("families.cost", device=True)
def cost(weights: Weights, *, steps: Steps = 50) -> Report:
    """What one picture costs: the network's parameters, its passes, and multiply-adds in thousands of millions.

    weights: of a family, or of a denoiser that is told nothing.
    steps: of a denoiser's sampler; a family has its own number.

    returns: "parameters"; "passes", the evaluations of a network for one picture after the other; "gigamacs".
    Raises: UserError: weights of something else.
    """
    from torch.utils.flop_counter import FlopCounterMode

    module, make, passes = _maker(weights, steps)
    with FlopCounterMode(display=False) as counter:
        make(1)
    # A denoiser's steps are all alike: one is counted.
    times = steps if weights.target not in _families() else 1
    parameters = sum(parameter.numel() for parameter in module.parameters())
    macs = counter.get_total_flops() / 2 * times
    return Report({"parameters": parameters, "passes": passes, "gigamacs": round(macs / 1e9, 4)})


@node("families.time", cacheable=False, device=True)
def time(ctx: Context, weights: Weights, *, steps: Steps = 50, count: Count = 8) -> Report:
    """How long this machine takes for a picture, now. Not cached: time is no function of the weights.

    weights: of a family, or of a denoiser that is told nothing.
    steps: of a denoiser's sampler.
    count: pictures at once.

    returns: "seconds" for one picture: the shortest of three runs, divided by count.
    Raises: UserError: weights of something else.
    """
    from time import perf_counter

    _, make, _ = _maker(weights, steps)
    times = steps if weights.target not in _families() else 1
    taken = []
    for number in range(3):
        started = perf_counter()
        make(count)
        taken.append(perf_counter() - started)
        ctx.progress(number + 1, 3)
    return Report({"seconds": min(taken) * times / count})


def _families() -> tuple[str, ...]:
    from mezzotint_families.building import CLASSES

    return CLASSES


def _maker(weights: Weights, steps: int) -> tuple[Any, Callable[[int], Tensor], int]:
    """The network, what makes `count` pictures (of a denoiser one step of them), and the passes for a picture."""
    import torch

    from mezzotint_families.building import build_family

    if weights.target in _families():
        family: Any = build_family(weights)

        def sample(count: int) -> Tensor:
            with torch.no_grad():
                return family.from_noise(torch.randn(count, *family.noise_shape, generator=torch.Generator()))

        return family, sample, getattr(family, "passes", 1)
    from mezzotint_models import build_network, part_of

    part = part_of(weights, "denoiser")
    module, record = build_network(part), part.meta["denoiser"]
    shape = (int(record["channels"]), int(record["sample_size"]), int(record["sample_size"]))

    def step(count: int) -> Tensor:
        with torch.no_grad():
            x = torch.randn(count, *shape, generator=torch.Generator())
            return module(x, torch.tensor(500.0), Conditioning())

    return module, step, steps
