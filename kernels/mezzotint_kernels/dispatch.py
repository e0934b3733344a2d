"""Which implementation of an op runs, and why.

Each op has a reference in plain torch, which is the oracle and the CPU's path, and a Triton kernel. `choose`
takes one of them by device, architecture, dtype, head size and what the op itself says of the call; it is
cached, so that a call costs microseconds. `mezzotint kernels` prints what it says.

MEZZOTINT_KERNELS forces one for the whole process:
    torch       the references, on any device
    triton      the kernels; an error where they cannot run
    interpret   the kernels by Triton's interpreter, on the CPU: slow, for tests and for looking into a kernel

No torch import here: the command line asks for the table without it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Literal, get_args

from mezzotint_kernels.tiles import Tile, find

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "OPS",
    "VARIABLE",
    "Backend",
    "Choice",
    "Row",
    "Rule",
    "architecture",
    "choose",
    "decide",
    "forced",
    "table",
]

Backend = Literal["torch", "triton", "interpret"]

VARIABLE = "MEZZOTINT_KERNELS"
_BACKENDS: tuple[Backend, ...] = get_args(Backend)


@dataclass(frozen=True)
class Choice:
    """What runs an op, and why. tile: the kernel's configuration; None with torch, and in the interpreter,
    where the launcher takes blocks as small as the case is."""

    op: str
    backend: Backend
    why: str
    tile: Tile | None = None


@dataclass(frozen=True)
class Rule:
    """What holds for all calls of an op.

    kernel: its main kernel's name in the table of tiles.
    why: what speaks for the kernel on a GPU; empty where torch's own implementation is taken there.
    torch_why: what speaks for torch, where `why` is empty or the op says that the call is a plain one.
    dot: it multiplies matrices, so float32 inputs need a configuration of their own.
    dtypes: of the first tensor.
    """

    kernel: str
    why: str = ""
    torch_why: str = ""
    dot: bool = True
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32")


_UNTIMED = "torch's own attention, until ours has been timed on a GPU"
_ONE_PASS = "one pass over the activations; torch makes several"

OPS: dict[str, Rule] = {
    "attention": Rule("attention_forward", torch_why=_UNTIMED),
    "attention_with_lse": Rule("attention_forward", "the log-sum-exp, for which torch must hold all scores"),
    "attention_indexed": Rule("attention_indexed", "reads keys and values by the table, where torch copies them"),
    "attention_terms": Rule("attention_terms", "all terms in one pass, where torch makes one for each"),
    "temporal_attention": Rule("temporal", "reads [B, F, P, H, D] as it lies, where torch permutes copies"),
    "p2p_attention": Rule("p2p", "both prompts' maps in one pass, where torch makes two"),
    "noise_step": Rule("noise_step", "guidance, update, noise, blend and cast in one pass", dot=False),
    "normals": Rule("normals", "the same bits as the reference, in one pass", dot=False),
    "norm_silu": Rule("norm_silu", _ONE_PASS, dot=False),
    "geglu": Rule("geglu", _ONE_PASS, dot=False),
}
"""Every op, by the name of its public function."""


def forced() -> Backend | None:
    """What MEZZOTINT_KERNELS says; None: nothing. Raises: ValueError: it is none of the three."""
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    for backend in _BACKENDS:
        if value == backend:
            return backend
    raise ValueError(f"{VARIABLE}={value}; wanted one of {', '.join(_BACKENDS)}, or nothing")


def choose(
    op: str,
    x: Tensor,
    *,
    head_dim: int = 0,
    plain: bool = False,
    kernel: str | None = None,
    obstacle: str | None = None,
) -> Choice:
    """What runs `op` on `x`.

    head_dim: of an attention; 0 for other ops.
    plain: a call that torch has a good implementation for.
    kernel: where the op has several: the one in the table of tiles that this call would launch.
    obstacle: what the kernels cannot do about this call, in words: "a bias that needs a gradient".
    Raises: ValueError: no such op; or MEZZOTINT_KERNELS forces what cannot run, with what is missing.
    Raises: RuntimeError: MEZZOTINT_KERNELS was set to "interpret" after kernels had been made for the compiler.
    """
    return _choose(op, forced(), x.device, x.dtype, head_dim, plain, kernel, obstacle)


@lru_cache(maxsize=4096)
def _choose(
    op: str,
    force: Backend | None,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    plain: bool,
    kernel: str | None,
    obstacle: str | None,
) -> Choice:
    choice = decide(
        op,
        device.type,
        architecture(device),
        str(dtype).removeprefix("torch."),
        head_dim=head_dim,
        plain=plain,
        kernel=kernel,
        obstacle=obstacle,
        force=force,
    )
    if choice.backend == "interpret":
        from mezzotint_kernels._triton.interpreter import prepare

        prepare()
    return choice


def decide(
    op: str,
    device: str,
    arch: str,
    dtype: str,
    *,
    head_dim: int = 0,
    plain: bool = False,
    kernel: str | None = None,
    obstacle: str | None = None,
    force: Backend | None = None,
) -> Choice:
    """As `choose`, from words alone: device "cuda", arch "sm90", dtype "float16"."""
    rule = OPS.get(op)
    if rule is None:
        raise ValueError(f"no op is named {op!r}; there are {', '.join(OPS)}")
    if force == "torch":
        return Choice(op, "torch", f"{VARIABLE}=torch")
    if dtype not in rule.dtypes:
        obstacle = f"{dtype}; the kernel takes {', '.join(rule.dtypes)}"
    if force == "interpret":
        obstacle = obstacle or _without_triton()
        if obstacle:
            raise ValueError(f"{VARIABLE}=interpret, but {op} cannot run in Triton's interpreter: {obstacle}")
        return Choice(op, "interpret", f"{VARIABLE}=interpret")
    if force is None and device == "cpu":
        return Choice(op, "torch", "on a CPU the reference is the fast path")
    if force is None and (not rule.why or plain):
        return Choice(op, "torch", rule.torch_why or "torch's own implementation serves this call")
    tile = None
    obstacle = obstacle or _without_gpu(device) or _without_triton()
    if not obstacle:
        tile = find(_row(rule, kernel, dtype), head_dim, arch)
        if tile is None:
            obstacle = f"no configuration for it on {arch} has passed the audit"
    if obstacle and force:
        size = f" and head size {head_dim}" if head_dim else ""
        raise ValueError(f"{VARIABLE}=triton, but {op} of {dtype}{size} cannot run as a Triton kernel: {obstacle}")
    if obstacle:
        return Choice(op, "torch", obstacle)
    return Choice(op, "triton", f"{VARIABLE}=triton" if force else rule.why, tile)


def _row(rule: Rule, kernel: str | None, dtype: str) -> str:
    name = kernel or rule.kernel
    return f"{name}.fp32" if rule.dot and dtype == "float32" else name


def _without_gpu(device: str) -> str | None:
    return None if device == "cuda" else f"the tensors are on {device!r}; the kernels need a GPU ('cuda')"


@cache
def _without_triton() -> str | None:
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return None


@cache
def architecture(device: torch.device) -> str:
    """The chip's name as the table of tiles has it: "sm90", "gfx942"; the device's type where it is no GPU."""
    if device.type != "cuda":
        return device.type
    import torch

    if torch.version.hip:
        name: str = torch.cuda.get_device_properties(device).gcnArchName
        return name.partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm{major}{minor}"


# The table


@dataclass(frozen=True)
class Row:
    """What runs one op on tensors of one kind.

    head_dim: 0 where the op has none. backend: None where an error would be raised; `why` is that error.
    """

    op: str
    dtype: str
    head_dim: int
    backend: Backend | None
    why: str
    tile: Tile | None = None


HEAD_DIMS = (40, 64, 80, 128, 160)
"""Of attentions that are in use: 40, 80 and 160 in SD 1.5, 64 in SDXL, 128 in larger transformers."""


def table(device: str, arch: str | None = None, *, force: Backend | None = None) -> list[Row]:
    """What would run each op for the dtypes and head sizes in use; imports no torch.

    device, arch: as in `decide`; arch is the device's own name by default.
    """
    rows = []
    for op, rule in OPS.items():
        for dtype in ("float16", "bfloat16", "float32"):
            for head_dim in HEAD_DIMS if rule.dot else (0,):
                try:
                    choice = decide(op, device, arch or device, dtype, head_dim=head_dim, force=force)
                    rows.append(Row(op, dtype, head_dim, choice.backend, choice.why, choice.tile))
                except ValueError as error:
                    rows.append(Row(op, dtype, head_dim, None, str(error)))
    return rows
