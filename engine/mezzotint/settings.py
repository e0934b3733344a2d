"""How a run is carried out: device, dtype, bounds. Nothing here changes what a graph means."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mezzotint.errors import UserError

__all__ = ["Settings", "detect_device", "numerics_profile"]

DTYPES = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Settings:
    """device: "auto", "cpu", "cuda", "cuda:1", "mps". workers: nodes that run side by side; device_slots: of these
    how many on the device. memory_limit: bytes of live values above which no further node starts. timeout: seconds
    per node, over what nodes say themselves. retries: after a transient failure. grace: seconds that a node has to
    notice its time-out.
    """

    device: str = "auto"
    dtype: str = "float32"
    workers: int = 0
    device_slots: int = 1
    memory_limit: int = 8 * 2**30
    fail_fast: bool = False
    timeout: float | None = None
    retries: int = 2
    grace: float = 5.0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"unknown dtype {self.dtype!r}; wanted one of {', '.join(DTYPES)}")
        if self.device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps", "xpu"):
            raise UserError(f"unknown device {self.device!r}; wanted auto, cpu, cuda, cuda:N or mps")
        if self.timeout is not None and self.timeout <= 0:
            raise UserError(f"a time-out must be more than 0 seconds, got {self.timeout}")
        least_of = {"workers": 0, "device_slots": 1, "memory_limit": 0, "retries": 0, "grace": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def resolved_device(self) -> str:
        return detect_device() if self.device == "auto" else self.device

    @property
    def resolved_workers(self) -> int:
        return self.workers or max(2, min(8, os.cpu_count() or 2))


@cache
def detect_device() -> str:
    """The best device, found without importing torch (which costs seconds)."""
    wanted = os.environ.get("MEZZOTINT_DEVICE")
    if wanted:
        return wanted
    if any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return "cuda"
    if sys.platform == "darwin" and os.uname().machine == "arm64":
        return "mps"
    return "cpu"


@cache
def _torch_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def numerics_profile(settings: Settings) -> str:
    """What the last bits of a result depend on besides the graph; a part of every content key.

    Raises: UserError: MEZZOTINT_KERNELS is none of its values.
    """
    kind = settings.resolved_device.partition(":")[0]
    threads = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count()) if kind == "cpu" else ""
    parts: dict[str, Any] = {
        "device": kind, "dtype": settings.dtype, "threads": threads, "torch": _torch_version().partition("+")[0],
    }  # fmt: skip
    if os.environ.get("MEZZOTINT_KERNELS"):
        parts["kernels"] = _forced_kernels()
    return ",".join(f"{k}={v}" for k, v in parts.items())


def _forced_kernels() -> str | None:
    from mezzotint_kernels.dispatch import forced

    try:
        return forced()
    except ValueError as error:
        raise UserError(str(error)) from error
