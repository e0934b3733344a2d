"""The forward process as tables, what a network is to say of it, and how much each level counts."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from mezzotint import NoiseSchedule, UserError

__all__ = ["Process", "Target", "Weighting", "clean_of", "eps_of", "level_weights", "target_of"]

Target = Literal["eps", "v", "x0"]
Weighting = Literal["simple", "min_snr", "p2"]


class Process:
    """alpha, sigma: float64 tables [T] of x_t = alpha x0 + sigma eps; index 0 is the cleanest level.

    Raises: UserError: a flow schedule, or eps where the last level has no signal that it could be told from.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        from mezzotint_sampling import alphas_cumprod

        if schedule.kind == "flow" or schedule.prediction == "flow":
            raise UserError(
                "training.diffusion trains variance-preserving schedules with prediction eps, v or x0; got flow. "
                "Take another schedule for the architecture"
            )
        if schedule.zero_terminal_snr and schedule.prediction == "eps":
            raise UserError("at zero terminal SNR noise says nothing of the picture: take prediction v or x0")
        self.kind: Target = schedule.prediction
        self.products = torch.from_numpy(alphas_cumprod(schedule).copy())
        self.alpha, self.sigma = self.products.sqrt(), (1 - self.products).sqrt()

    def __len__(self) -> int:
        return len(self.products)

    def at(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of times [B], each [B, 1, ...] with the dtype, device and axes of `like`."""
        picked = (table[times.cpu()].to(like.device, like.dtype) for table in (self.alpha, self.sigma))
        first, second = (value.view(-1, *[1] * (like.ndim - 1)) for value in picked)
        return first, second

    def range_of(self, low: float, high: float) -> tuple[int, int]:
        """The indices between which sigma / alpha lies from `low` to `high`."""
        ratio = self.sigma / self.alpha
        return int((ratio < low).sum()), int((ratio < high).sum())


def target_of(kind: Target, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network is to say. v = alpha eps - sigma x0 (Salimans and Ho 2022, appendix D)."""
    match kind:
        case "eps":
            return noise
        case "x0":
            return clean
        case _:
            return alpha * noise - sigma * clean


def clean_of(kind: Target, output: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The clean picture that an output stands for, at alpha**2 + sigma**2 = 1."""
    match kind:
        case "eps":
            return (noisy - sigma * output) / alpha
        case "x0":
            return output
        case _:
            return alpha * noisy - sigma * output


def eps_of(noisy: Tensor, clean: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The noise that makes `noisy` of `clean`."""
    return (noisy - alpha * clean) / sigma


def level_weights(kind: Target, weighting: Weighting, gamma: float, alpha: Any, sigma: Any) -> Any:
    """How much the squared error of the target counts at each level.

    simple: 1, whatever the target. min_snr: min(SNR, gamma) of the error in x0 (Hang et al. 2023, section 3.4).
    p2: (1 + SNR) ** -gamma of the error in eps (Choi et al. 2022, eq. 8 with k = 1). For another target the
    weight is what leaves the loss the same: an error in eps is SNR times that in x0, SNR / (1 + SNR) that in v.
    """
    if weighting == "simple":
        return torch.ones_like(alpha)
    snr = (alpha / sigma).square()
    if kind == "eps":
        # Never 0 / 0, where there is no signal at all.
        return gamma / snr.clamp(min=gamma) if weighting == "min_snr" else (1 + snr) ** -gamma
    in_x0 = snr.clamp(max=gamma) if weighting == "min_snr" else snr * (1 + snr) ** -gamma
    return in_x0 if kind == "x0" else in_x0 / (1 + snr)
