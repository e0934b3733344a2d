"""The bundled samplers by name, and what a plugin needs to write one.

A sampler is a generator that reads like its paper, and does no arithmetic on tensors:
`mezzotint_sampling.protocol` has the terms. No sampler knows what a model predicts, and all of
them can start at alpha = 0. On flow levels euler and heun are the samplers of flow matching.
"""

from __future__ import annotations

from collections.abc import Mapping

from mezzotint_sampling.ddpm import ddim, ddpm, lcm
from mezzotint_sampling.dpm2 import dpm_2, dpm_2_ancestral
from mezzotint_sampling.dpm_solver import (
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s,
    dpmpp_2s_ancestral,
    dpmpp_3m,
    dpmpp_3m_sde,
    dpmpp_sde,
)
from mezzotint_sampling.euler import euler, euler_ancestral
from mezzotint_sampling.heun import heun, restart
from mezzotint_sampling.multistep import deis, ipndm, lms
from mezzotint_sampling.protocol import Advance, Sampler, State, evaluation_count, evaluations, knows, rising
from mezzotint_sampling.unipc import unipc

__all__ = [
    "SAMPLERS", "Advance", "Sampler", "State", "ddim", "ddpm", "deis", "dpm_2", "dpm_2_ancestral", "dpmpp_2m",
    "dpmpp_2m_sde", "dpmpp_2s", "dpmpp_2s_ancestral", "dpmpp_3m", "dpmpp_3m_sde", "dpmpp_sde", "euler",
    "euler_ancestral", "evaluation_count", "evaluations", "heun", "ipndm", "knows", "lcm", "lms", "restart",
    "rising", "unipc",
]  # fmt: skip

SAMPLERS: Mapping[str, Sampler] = {
    sampler.__name__: sampler
    for sampler in (
        ddpm, ddim, lcm, euler, euler_ancestral, heun, restart, dpm_2, dpm_2_ancestral, lms, deis, ipndm,
        dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde, dpmpp_2s, dpmpp_2s_ancestral, dpmpp_sde, unipc,
    )
}  # fmt: skip
