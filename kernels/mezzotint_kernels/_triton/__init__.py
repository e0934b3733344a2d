"""Triton kernels, one file per subject. Nothing here imports torch; `configs` imports no Triton either."""
