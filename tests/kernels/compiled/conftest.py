"""What Triton compiles, without a GPU. Not collected where it interprets: one process cannot do both."""

from __future__ import annotations

import os

if os.environ.get("MEZZOTINT_KERNELS") == "interpret" or os.environ.get("TRITON_INTERPRET") == "1":
    collect_ignore_glob = ["test_*.py"]
