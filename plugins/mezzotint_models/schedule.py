"""The forward process out of diffusers' scheduler configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mezzotint import NoiseSchedule, UserError

__all__ = ["schedule_from"]

_KINDS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}


def schedule_from(config: Mapping[str, Any], where: str) -> NoiseSchedule:
    """The `NoiseSchedule` of a scheduler_config.json; which sampler it names plays no part.

    Raises: UserError: betas given one by one, or a schedule that is not known.
    """
    steps = config.get("num_train_timesteps", 1000)
    name = str(config.get("_class_name", ""))
    if not isinstance(steps, int) or not 1 <= steps <= 100_000:
        raise UserError(f"{where}: num_train_timesteps must be 1 to 100000, got {steps!r}")
    if name.startswith("FlowMatch"):
        shift = _number(config, "shift", 1.0, where)
        return NoiseSchedule(kind="flow", train_steps=steps, prediction="flow", shift=shift)
    if config.get("trained_betas") is not None:
        raise UserError(f"{where}: betas given one by one (trained_betas) are not supported")
    beta = config.get("beta_schedule", "linear")
    prediction = config.get("prediction_type", "epsilon")
    if beta not in _KINDS:
        raise UserError(f"{where}: beta_schedule {beta!r} is not known; known are {', '.join(_KINDS)}")
    if prediction not in _PREDICTIONS:
        raise UserError(
            f"{where}: prediction_type {prediction!r} is not known; known are {', '.join(_PREDICTIONS)}"
        )
    return NoiseSchedule(
        kind=_KINDS[beta],  # type: ignore[arg-type]
        beta_start=_number(config, "beta_start", 0.0001, where),
        beta_end=_number(config, "beta_end", 0.02, where),
        train_steps=steps,
        prediction=_PREDICTIONS[prediction],  # type: ignore[arg-type]
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
    )


def _number(config: Mapping[str, Any], key: str, default: float, where: str) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or not 0 < value < 1e6:
        raise UserError(f"{where}: {key} must be a number above 0, got {value!r}")
    return float(value)
