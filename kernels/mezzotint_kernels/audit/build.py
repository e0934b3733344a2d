"""Compile a case for an architecture that need not be here, exactly as the JIT would on a launch.

Triton's own specialisation is run on stand-ins for the arguments, so that what is divisible by 16 or equal to 1
is known to the compiler as it is on a GPU. Without it loads would be 2 bytes wide where the JIT's are 16.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mezzotint_kernels.audit.case import Case
from mezzotint_kernels.audit.chips import LIMITS

if TYPE_CHECKING:
    from triton.compiler import CompiledKernel
    from triton.runtime.jit import JITFunction

__all__ = ["AuditError", "check_tools", "compile_case", "disassemble"]


class AuditError(Exception):
    """The audit cannot go on, or a case cannot be compiled; the message says what is missing or wrong."""


@dataclass(frozen=True)
class _Pointer:
    """Stands for a tensor in Triton's specialisation: a type, an address, fewer than 2 GiB."""

    dtype: str
    address: int

    def data_ptr(self) -> int:
        return self.address

    def ptr_range(self) -> int:
        return 0


def check_tools() -> str:
    """Triton's version. Raises: AuditError: Triton or its disassembler is missing, or Triton interprets."""
    try:
        import triton
        from triton import knobs
    except ImportError as error:
        raise AuditError(
            f"the audit compiles with Triton, which cannot be imported ({error}); it needs no GPU and no CUDA: "
            "pip install triton (Linux)"
        ) from error
    # MEZZOTINT_KERNELS=interpret makes the kernels' package set the other.
    interpreting = os.environ.get("MEZZOTINT_KERNELS") == "interpret"
    if interpreting or knobs.runtime.interpret:
        variable = "MEZZOTINT_KERNELS=interpret" if interpreting else "TRITON_INTERPRET"
        raise AuditError(f"{variable} is set, so Triton interprets and cannot compile; unset it for the audit")
    try:
        # `path` itself asks the tool for its version, and fails where there is none.
        _ = knobs.nvidia.nvdisasm.path
    except RuntimeError as error:
        raise AuditError(
            f"Triton {triton.__version__} has no nvdisasm, which the audit reads machine code with ({error}); "
            "the wheels of PyPI have it, and TRITON_NVDISASM_PATH may name another"
        ) from error
    return triton.__version__


def compile_case(case: Case, arch: str) -> CompiledKernel:
    """Triton's result, from its cache (TRITON_CACHE_DIR) or made now.

    Raises: AuditError: there is no tile, no such function, an argument is missing, or the compiler refused.
    """
    import triton
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import create_function_from_signature

    tile = case.tile(arch)
    if tile is None:
        raise AuditError(f"{case.name}: the table of tiles has no ({case.kernel!r}, {case.head_dim}, {arch!r})")
    function = _function(case)
    arguments = dict(case.arguments(tile, arch))
    wanted = set(function.arg_names)
    if missing := wanted - set(arguments) - _with_default(function):
        raise AuditError(f"{case.name}: the case gives no {', '.join(sorted(missing))} to {case.function}")
    if extra := set(arguments) - wanted:
        raise AuditError(f"{case.name}: {case.function} takes no {', '.join(sorted(extra))}")
    constexprs = {param.name for param in function.params if param.is_constexpr}
    values = {name: v if name in constexprs else _stand_in(v) for name, v in arguments.items()}
    options = {**tile.options(arch), **(case.options or {}), "enable_fp_fusion": not case.reproducible}
    target = _target(arch)
    try:
        bind = create_function_from_signature(function.signature, function.params, make_backend(target))
        bound, specialization, _ = bind(**values)
        _, signature, constants, attributes = function._pack_args(
            make_backend(target), {}, bound, specialization, {}
        )
        source = ASTSource(function, signature, constants, attributes)
        return triton.compile(source, target=target, options=options)
    except Exception as error:  # Triton raises what its passes, LLVM and ptxas raise, of no common class
        raise AuditError(f"{case.name} does not compile for {arch}: {type(error).__name__}: {error}") from error


def disassemble(cubin: bytes) -> str:
    """The SASS of a cubin, by the nvdisasm of Triton's wheel. Raises: AuditError: it refused."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [knobs.nvidia.nvdisasm.path, "-c", file.name], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise AuditError(f"nvdisasm could not read {len(cubin)} bytes: {done.stderr.strip()}")
    return done.stdout


def _target(arch: str) -> Any:
    from triton.backends.compiler import GPUTarget

    if arch.startswith("gfx"):
        return GPUTarget("hip", arch, LIMITS[arch].lanes)
    return GPUTarget("cuda", int(arch.removeprefix("sm")), LIMITS[arch].lanes)


def _function(case: Case) -> JITFunction[Any]:
    from triton.runtime.jit import JITFunction

    module, _, name = case.function.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise AuditError(f"{case.name}: there is no {case.function} ({error})") from error
    if not isinstance(found, JITFunction):
        raise AuditError(f"{case.name}: {case.function} is a {type(found).__name__}, no @triton.jit function")
    return found


def _with_default(function: JITFunction[Any]) -> set[str]:
    return {param.name for param in function.params if param.has_default}


def _stand_in(value: Any) -> Any:
    """ "*fp16" -> a pointer aligned to 16 bytes; "*fp16:2" -> one aligned to 2; the rest as it is."""
    if isinstance(value, str) and (found := re.fullmatch(r"\*(\w+?)(?::(\d+))?", value)):
        alignment = int(found[2] or 16)
        return _Pointer(found[1], 0 if alignment % 16 == 0 else alignment)
    return value
