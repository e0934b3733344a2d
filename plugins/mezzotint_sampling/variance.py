"""Learned variance: noise whose standard deviation the model has predicted, element by element."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from mezzotint import UserError
from mezzotint_kernels import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint import Prediction

__all__ = ["learned_noise"]


def learned_noise(
    numbers: Tensor | Draw, prediction: Prediction, x: Tensor, spread: tuple[float, float]
) -> Tensor:
    """Normals times a standard deviation between spread[0] and spread[1], in the logarithm.

    The model's v in -1..1, `prediction.variance` [B, C, ...], says where between:
    log std = (1 - v) / 2 log low + (1 + v) / 2 log high. Source: Nichol and Dhariwal 2021, "Improved
    denoising diffusion probabilistic models", eq. 15. float32, or float64 if x is float64.
    Raises: UserError: the model has not predicted its variance, or not in x's shape.
    """
    if prediction.variance is None:
        raise UserError(
            "variance 'learned' needs a model that predicts its variance (twice as many output "
            "channels as input channels); this one does not: use 'small' or 'large'"
        )
    if prediction.variance.shape != x.shape:
        got, wanted = tuple(prediction.variance.shape), tuple(x.shape)
        raise UserError(f"the model's variance has shape {got}; wanted {wanted}")
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    low, high = (math.log(s) for s in spread)
    place = (prediction.variance.to(dtype) + 1) / 2
    normals = numbers.normals(x.shape, device=x.device) if isinstance(numbers, Draw) else numbers
    return normals.to(x.device, dtype) * torch.exp(low + place * (high - low))
