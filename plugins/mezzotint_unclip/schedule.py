"""The forward process of the diffusion prior."""

from __future__ import annotations

from mezzotint import NoiseSchedule

__all__ = ["SCHEDULE"]

SCHEDULE = NoiseSchedule(kind="cosine", train_steps=1000, prediction="x0")
"""Ramesh et al. 2022 (unCLIP), section 2.2 and appendix C: cosine, and the clean embedding is predicted."""
