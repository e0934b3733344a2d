"""What `mezzotint_kernels` would run here: its table of choices, for this machine or for a GPU that is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mezzotint.errors import UserError

if TYPE_CHECKING:
    from mezzotint_kernels.dispatch import Row

__all__ = ["KernelChoices", "kernel_choices"]


@dataclass(frozen=True)
class KernelChoices:
    """where: the device that the rows are for, in words."""

    where: str
    rows: list[Row]


def kernel_choices(arch: str | None = None) -> KernelChoices:
    """The table. arch: of a GPU that need not be here, e.g. "sm90".

    Torch is imported only where there is a GPU to look at.
    Raises: UserError: the kernels or torch are not installed, torch cannot use the GPU that is here, `arch` is no
        architecture, or MEZZOTINT_KERNELS is none of its values.
    """
    try:
        from mezzotint_kernels.dispatch import forced, table
    except ImportError as error:
        raise UserError(f"the kernels cannot be imported ({error}); install mezzotint again") from error
    try:
        force = forced()
    except ValueError as error:
        raise UserError(str(error)) from error
    if arch is not None:
        if not re.fullmatch(r"sm\d{2,3}|gfx[0-9a-f]{3,4}", arch):
            raise UserError(f"unknown architecture {arch!r}; wanted one like sm80, sm90, sm100 or gfx942")
        return KernelChoices(f"For a GPU of {arch}:", table("cuda", arch, force=force))
    device, found, where = _here()
    return KernelChoices(where, table(device, found, force=force))


def _here() -> tuple[str, str, str]:
    """The device's type, its architecture, and both in words."""
    from mezzotint.settings import detect_device

    if find_spec("torch") is None:
        raise UserError("torch is not installed, so nothing here can compute; install mezzotint again")
    device = detect_device()
    kind = device.partition(":")[0]
    if kind != "cuda":
        return kind, kind, f"For this machine, on {device}:"
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "a GPU is there, but torch cannot use it; `mezzotint doctor` says more, --arch needs no GPU"
        )
    from mezzotint_kernels.dispatch import architecture

    arch = architecture(torch.device(device))
    return kind, arch, f"For this machine, on {device}, {torch.cuda.get_device_name(device)} ({arch}):"
