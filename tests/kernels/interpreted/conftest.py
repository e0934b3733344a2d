"""Kernels by Triton's interpreter. Collected only in a process of its own, by

    MEZZOTINT_KERNELS=interpret python -m pytest tests/kernels/interpreted

because Triton decides when a kernel is decorated whether it is interpreted or compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

GUARD = 64
"""Cells on either side of every output; more than 16 bytes of any dtype, so that alignment stays."""

if os.environ.get("MEZZOTINT_KERNELS") != "interpret":
    collect_ignore_glob = ["test_*.py"]
else:
    import mezzotint_kernels._triton  # noqa: F401  (makes the interpreter ready before a test decorates a kernel)


class Guards:
    """Buffers whose every byte is 0xFF (NaN in every float type, -1 in integers) around and in each output."""

    def __init__(self) -> None:
        self._buffers: list[tuple[Tensor, int]] = []

    def __call__(
        self, shape: tuple[int, ...], dtype: torch.dtype, strides: tuple[int, ...] | None = None
    ) -> Tensor:
        """An output of `shape`, NaN throughout, between guard cells. strides: dense by default."""
        meta = torch.zeros(shape, device="meta").stride() if strides is None else strides
        span = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, meta, strict=True))
        buffer = torch.zeros(span + 2 * GUARD, dtype=dtype, device="cpu")
        buffer.untyped_storage().fill_(0xFF)
        self._buffers.append((buffer, span))
        # Not a view: autograd treats views that an op returns in a way of their own.
        return torch.zeros(0, dtype=dtype, device="cpu").set_(buffer.untyped_storage(), GUARD, shape, meta)

    def check(self) -> None:
        """Raises: AssertionError: something was written outside an output."""
        for buffer, span in self._buffers:
            for part in (buffer[:GUARD], buffer[GUARD + span :]):
                assert bool((part.view(torch.uint8) == 0xFF).all()), "a kernel wrote outside its output"

    def forget(self) -> None:
        """Check nothing of what was handed out so far."""
        self._buffers.clear()


@pytest.fixture
def guarded() -> Iterator[Guards]:
    """`guarded(shape, dtype)`: an output that a kernel must fill and not overstep. Checked after the test."""
    guards = Guards()
    yield guards
    guards.check()


@pytest.fixture(autouse=True)
def guarded_allocations(guarded: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every output that a launcher allocates (torch.empty, empty_like, empty_strided, new_empty) is guarded."""
    plain = SimpleNamespace(
        empty=torch.empty, like=torch.empty_like, strided=torch.empty_strided, new=Tensor.new_empty
    )

    def guard(made: Tensor) -> Tensor:
        if type(made) is not Tensor or made.device.type != "cpu" or made.requires_grad:
            return made
        return guarded(tuple(made.shape), made.dtype, tuple(made.stride()))

    def wrap(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: guard(make(*args, **kwargs))

    monkeypatch.setattr(torch, "empty", wrap(plain.empty))
    monkeypatch.setattr(torch, "empty_like", wrap(plain.like))
    monkeypatch.setattr(torch, "empty_strided", wrap(plain.strided))
    monkeypatch.setattr(Tensor, "new_empty", wrap(plain.new))


@pytest.fixture
def bound() -> Callable[[Tensor, Tensor, Tensor], None]:
    """`bound(got, exact, theirs)`: the house rule for a kernel's error.

    exact: the reference in float64. theirs: torch's own result in the kernel's dtype. The largest error may be
    at most twice torch's, plus 1e-5; NaN and infinities are where the reference has them.
    """

    def check(got: Tensor, exact: Tensor, theirs: Tensor) -> None:
        assert exact.dtype == torch.float64 and got.shape == exact.shape == theirs.shape
        finite = exact.isfinite()
        torch.testing.assert_close(got.double()[~finite], exact[~finite], equal_nan=True, rtol=0, atol=0)
        assert bool(got[finite].isfinite().all()), "the kernel left an output unwritten, or made a NaN"
        error = _largest(got, exact, finite)
        allowed = 2 * _largest(theirs, exact, finite) + 1e-5
        assert error <= allowed, f"largest error {error:.3g}; at most {allowed:.3g} is allowed"

    return check


def _largest(got: Tensor, exact: Tensor, where: Tensor) -> float:
    errors = (got.double() - exact)[where].abs()
    return float(errors.max()) if errors.numel() else 0.0
