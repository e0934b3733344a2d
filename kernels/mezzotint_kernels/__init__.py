"""Mezzotint's kernels, each beside its reference in plain torch.

Importing this package imports no torch: names load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mezzotint_kernels.coefficients import Coefficients
    from mezzotint_kernels.dense import AttentionResult, attention, attention_reference, attention_with_lse
    from mezzotint_kernels.indexed import attention_indexed, deduplicate
    from mezzotint_kernels.norm import geglu, norm_silu
    from mezzotint_kernels.p2p import (
        Folded,
        P2PResult,
        fold,
        p2p_attention,
        p2p_attention_folded,
        p2p_attention_with_maps,
    )
    from mezzotint_kernels.philox import Draw, normals
    from mezzotint_kernels.step import StepResult, guided, noise_step
    from mezzotint_kernels.temporal import temporal_attention
    from mezzotint_kernels.terms import attention_terms

__all__ = [
    "AttentionResult",
    "Coefficients",
    "Draw",
    "Folded",
    "P2PResult",
    "StepResult",
    "attention",
    "attention_indexed",
    "attention_reference",
    "attention_terms",
    "attention_with_lse",
    "deduplicate",
    "fold",
    "geglu",
    "guided",
    "noise_step",
    "norm_silu",
    "normals",
    "p2p_attention",
    "p2p_attention_folded",
    "p2p_attention_with_maps",
    "temporal_attention",
]

_HOME = {
    "AttentionResult": "dense",
    "attention": "dense",
    "attention_indexed": "indexed",
    "attention_reference": "dense",
    "attention_terms": "terms",
    "attention_with_lse": "dense",
    "Coefficients": "coefficients",
    "Draw": "philox",
    "Folded": "p2p",
    "P2PResult": "p2p",
    "StepResult": "step",
    "deduplicate": "indexed",
    "fold": "p2p",
    "geglu": "norm",
    "guided": "step",
    "noise_step": "step",
    "norm_silu": "norm",
    "normals": "philox",
    "p2p_attention": "p2p",
    "p2p_attention_folded": "p2p",
    "p2p_attention_with_maps": "p2p",
    "temporal_attention": "temporal",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
