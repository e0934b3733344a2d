"""Muon: momentum whose matrices are made orthogonal, for hidden layers; AdamW for all the rest.

After Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (the iteration's
coefficients), and Liu et al. 2025, "Muon is scalable for LLM training", eq. 4 (steps as large as
AdamW's, so that both kinds share one learning rate). Unlike torch.optim.Muon it also takes
convolutions, as [out, in * height * width], and computes in the parameters' own dtype: bfloat16 is
slow on most processors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# First and last layers and what looks up or embeds: their rows are no matrix to be balanced.
EDGES = ("conv_in", "conv_out", "embedding", "time_emb")


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix or convolution between hidden layers."""
    return parameter.ndim >= 2 and not any(edge in name for edge in EDGES)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix, roughly, whose singular values are about 1 (0.7 to 1.2).

    matrix: [M, N], any scale. Source: Jordan et al. 2024, the quintic Newton-Schulz iteration.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the hidden matrices among named parameters, AdamW for the others.

    rank, world, total: data-parallel copies share the orthogonalising; `total` adds a tensor up over
    all of them, in place. State per parameter, for checkpoints: "momentum", or "step", "exp_avg" and
    "exp_avg_sq" as in AdamW.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        rank: int = 0,
        world: int = 1,
        total: Callable[[Tensor], Any] | None = None,
    ) -> None:
        hidden = [p for name, p in parameters.items() if is_hidden(name, p)]
        others = [p for name, p in parameters.items() if not is_hidden(name, p)]
        groups = [
            {"params": params, "kind": kind} for params, kind in ((hidden, "muon"), (others, "adamw")) if params
        ]
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "momentum": momentum})
        self._rank, self._world, self._total = rank, world, total

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        for group in self.param_groups:
            tuned = [p for p in group["params"] if p.grad is not None]
            if not tuned:
                continue
            torch._foreach_mul_(tuned, 1 - group["lr"] * group["weight_decay"])
            if group["kind"] == "muon":
                self._muon(tuned, group["lr"], group["momentum"])
            else:
                for parameter in tuned:
                    self._adamw(parameter, group["lr"], group["betas"])

    def _muon(self, tuned: list[Tensor], rate: float, momentum: float) -> None:
        changes = []
        for index, parameter in enumerate(tuned):
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].mul_(momentum).add_(parameter.grad)
            change = torch.zeros(parameter.shape, dtype=parameter.dtype, device=parameter.device)
            if index % self._world == self._rank:
                ahead = (parameter.grad + momentum * state["momentum"]).reshape(len(parameter), -1)
                change = (-rate * 0.2 * math.sqrt(max(ahead.shape)) * orthogonalise(ahead)).reshape(change.shape)
            changes.append(change)
        if self._total is not None and self._world > 1:
            flat = torch._utils._flatten_dense_tensors(changes)
            self._total(flat)
            changes = list(torch._utils._unflatten_dense_tensors(flat, changes))
        torch._foreach_add_(tuned, changes)

    def _adamw(self, parameter: Tensor, rate: float, betas: tuple[float, float]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        count = state["step"].item()
        state["exp_avg"].lerp_(parameter.grad, 1 - betas[0])
        state["exp_avg_sq"].mul_(betas[1]).addcmul_(parameter.grad, parameter.grad, value=1 - betas[1])
        scale = (state["exp_avg_sq"] / (1 - betas[1] ** count)).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["exp_avg"], scale, value=-rate / (1 - betas[0] ** count))
