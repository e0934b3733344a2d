"""Triton's interpreter, made fit for kernels in bfloat16 and quick enough for tests. For Triton 3.7.

`prepare` turns this process into one that interprets: MEZZOTINT_KERNELS=interpret. What is repaired:

- bfloat16 is held as uint16 there, and tl.dot, +, - and so on work on those bit patterns; a cast from float32
  cuts off what it should round. Products, sums and casts go through float32 here, rounded once, to nearest even.
- Triton's own library (tl.sum, tl.zeros, ...) was decorated for the compiler if anything imported Triton before;
  diffusers does. It is decorated anew.
- The language was patched at each launch and each call of a helper (7 ms); here once per module.
- Additions of integers were checked for overflow, a third of the time of a small kernel. They wrap, as on a GPU.
- NumPy's warnings about NaN and infinities are off: arithmetic on a GPU gives no warnings.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.jit import JITFunction

__all__ = ["prepare"]

_prepared = False


def prepare() -> None:
    """Interpret every kernel that is decorated from now on; doing it again does nothing.

    Raises: RuntimeError: kernels of ours were already decorated for the compiler.
    """
    global _prepared
    if _prepared:
        return
    late = [name for name, module in sys.modules.items() if _is_ours(name) and _compiled(module)]
    if late:
        raise RuntimeError(
            f"MEZZOTINT_KERNELS=interpret came too late: {', '.join(late)} was imported for the compiler; "
            "set it in the environment, before Python starts"
        )
    os.environ["TRITON_INTERPRET"] = "1"
    _decorate_library_anew()
    _repair_bfloat16()
    _patch_language_once()
    options = interpreter.interpreter_builder.options
    interpreter.interpreter_builder.options = dataclasses.replace(options, sanitize_overflow=False)
    _prepared = True


def _is_ours(name: str) -> bool:
    return name.startswith("mezzotint_kernels._triton.")


def _compiled(module: ModuleType) -> bool:
    return any(isinstance(value, JITFunction) for value in vars(module).values())


def _decorate_library_anew() -> None:
    """Replace what Triton's language decorated for the compiler, under every name that it has."""
    interpreted: dict[Any, Any] = {}  # by the plain function; a JITFunction's hash is that of its source
    modules = [m for name, m in sys.modules.items() if name.startswith("triton.language")]
    for place in [*modules, tl.tensor]:
        for name, value in list(vars(place).items()):
            if isinstance(value, JITFunction):
                function = interpreted.setdefault(value.fn, interpreter.InterpretedFunction(value.fn))
                setattr(place, name, _method(function) if place is tl.tensor else function)


def _method(function: Any) -> Any:
    """A plain function, which binds to the tensor that it is called on."""
    return lambda *args, **kwargs: function(*args, **kwargs)


# bfloat16


def _widen(data: np.ndarray) -> np.ndarray:
    """bfloat16, as uint16, to float32."""
    return (data.astype(np.uint32) << 16).view(np.float32)


def _narrow(data: np.ndarray) -> np.ndarray:
    """float32 to bfloat16, as uint16: to nearest, ties to even; a NaN stays a NaN."""
    bits = np.ascontiguousarray(data, dtype=np.float32).view(np.uint32)
    rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))) >> 16).astype(np.uint16)
    return np.where(np.isnan(data), np.uint16(0x7FC0), rounded).reshape(np.shape(data))


def _wide(handle: Any) -> np.ndarray:
    return _widen(handle.data) if handle.dtype.scalar == tl.bfloat16 else handle.data


def _repair_bfloat16() -> None:
    builder = interpreter.InterpreterBuilder
    convert, binary, ternary = interpreter._convert_float, builder.binary_op, builder.ternary_op

    def convert_float(data: np.ndarray, source: Any, target: Any, rounding: Any) -> np.ndarray:
        # The caller views the result as the target's NumPy type: uint16 for bfloat16.
        if source == tl.bfloat16 and target == tl.float32:
            return _widen(data)
        if source == tl.float32 and target == tl.bfloat16:
            return _narrow(data)
        return convert(data, source, target, rounding).reshape(data.shape)

    def dot(self: Any, a: Any, b: Any, d: Any, precision: Any, imprecise: Any) -> Any:
        if a.dtype.scalar.primitive_bitwidth == 8:
            raise NotImplementedError("the interpreter's products of 8-bit floats are not checked here")
        dtype = d.data.dtype
        product = np.matmul(_wide(a).astype(dtype, copy=False), _wide(b).astype(dtype, copy=False))
        return interpreter.TensorHandle(product + d.data, d.dtype.scalar)

    def narrowed(output: np.ndarray) -> Any:
        data = _narrow(output) if output.dtype == np.float32 else output  # comparisons give truth values
        return interpreter.TensorHandle(data, tl.bfloat16)

    def binary_op(self: Any, lhs: Any, rhs: Any, op: Any) -> Any:
        if lhs.dtype.scalar != tl.bfloat16:
            return binary(self, lhs, rhs, op)
        return narrowed(op(_wide(lhs), _wide(rhs)))

    def ternary_op(self: Any, first: Any, second: Any, third: Any, op: Any) -> Any:
        # A select moves bits and needs no help; a clamp compares numbers.
        if op is np.where or third.dtype.scalar != tl.bfloat16:
            return ternary(self, first, second, third, op)
        return narrowed(op(_wide(first), _wide(second), _wide(third)))

    def fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        if z.dtype.scalar == tl.bfloat16:
            return narrowed(_wide(x) * _wide(y) + _wide(z))
        return interpreter.TensorHandle(x.data * y.data + z.data, z.dtype.scalar)

    interpreter._convert_float = convert_float
    builder.create_dot, builder.create_fma = dot, fma
    builder.binary_op, builder.ternary_op = binary_op, ternary_op


# Speed


def _patch_language_once() -> None:
    """The language stays patched, since nothing in this process compiles."""
    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched: set[ModuleType] = set()
    seen: set[int] = set()

    def patch_once(fn: Any) -> Any:
        if id(fn.__globals__) not in seen:
            seen.add(id(fn.__globals__))
            modules = {m for m in fn.__globals__.values() if m is tl or m is tl.core} - patched
            if modules:
                patch(SimpleNamespace(__globals__={module.__name__: module for module in modules}))
                patched.update(modules)
        return interpreter._LangPatchScope()  # with nothing in it to undo

    def quiet_launch(self: Any, *args: Any, **kwargs: Any) -> Any:
        with np.errstate(all="ignore"):
            return launch(self, *args, **kwargs)

    interpreter._patch_lang = patch_once
    interpreter.GridExecutor.__call__ = quiet_launch
