"""Mezzotint's kernels, each beside its reference in plain torch.

Importing this package imports no torch: names load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mezzotint_kernels.attention import AttentionResult, attention_reference, attention_with_lse
    from mezzotint_kernels.coefficients import Coefficients
    from mezzotint_kernels.indexed import attention_indexed, deduplicate
    from mezzotint_kernels.philox import Draw, normals
    from mezzotint_kernels.step import StepResult, guided, noise_step
    from mezzotint_kernels.terms import attention_terms

__all__ = [
    "AttentionResult",
    "Coefficients",
    "Draw",
    "StepResult",
    "attention_indexed",
    "attention_reference",
    "attention_terms",
    "attention_with_lse",
    "deduplicate",
    "guided",
    "noise_step",
    "normals",
]

# `attention` itself is not here: a name cannot be both a function and the module that it is in. It is to be had by
# `from mezzotint_kernels.attention import attention`.
_HOME = {
    "AttentionResult": "attention",
    "attention_indexed": "indexed",
    "attention_reference": "attention",
    "attention_terms": "terms",
    "attention_with_lse": "attention",
    "Coefficients": "coefficients",
    "Draw": "philox",
    "StepResult": "step",
    "deduplicate": "indexed",
    "guided": "step",
    "noise_step": "step",
    "normals": "philox",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
