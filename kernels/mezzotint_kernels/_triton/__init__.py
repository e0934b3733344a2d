"""Triton kernels, one file per subject. Nothing here imports torch; `configs` imports no Triton either.

Whether a kernel is compiled or interpreted is decided when it is decorated, so the interpreter is made ready
here, before any kernel's file can be imported.
"""

from __future__ import annotations

from mezzotint_kernels.dispatch import forced

if forced() == "interpret":
    from mezzotint_kernels._triton.interpreter import prepare

    prepare()
