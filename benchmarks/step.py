"""What one sampling step costs on this CPU: the formula as written, the reference, and torch.compile, as ratios.

    python benchmarks/step.py [--repeat 40] [--threads 1] [--no-compile]

All run in turn in one process, and the best of each counts, in CPU time of all threads, so that what else the
machine does falls on all of them alike. The ratio to the formula as written is the figure to compare; the
microseconds are this machine's.
`break-even` is the number of steps after which a compile of that length has paid for itself.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mezzotint_kernels import Coefficients, normals
from mezzotint_kernels.philox import normals_reference
from mezzotint_kernels.step import StepResult, noise_step_reference

SHAPES = ((1, 4, 32, 32), (4, 4, 64, 64), (1, 3, 512, 512), (2, 4, 16, 64, 64))
ROW = Coefficients(cg=0.3, c0=0.9, ch=(0.2,), cz=0.1, ax=1.1, am=-0.4, lo=-3.0, hi=3.0)
WEIGHTS = (7.5, -6.5)


def written(x: Tensor, outputs: tuple[Tensor, Tensor], past: Tensor, z: Tensor) -> StepResult:
    """The step of ROW as one would write it: a new tensor for each product and each sum."""
    g = outputs[0] * WEIGHTS[0] + outputs[1] * WEIGHTS[1]
    x0 = (x * ROW.ax + g * ROW.am).clamp(ROW.lo, ROW.hi)
    return StepResult(g * ROW.cg + x0 * ROW.c0 + past * ROW.ch[0] + z * ROW.cz, x0)


def reference(x: Tensor, outputs: tuple[Tensor, Tensor], past: Tensor, z: Tensor) -> StepResult:
    """The same by the reference, which adds in place."""
    return noise_step_reference(x, outputs, ROW, weights=WEIGHTS, history=(past,), noise=z)


def best(calls: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """CPU seconds of the fastest call of each, called in turn."""
    found = dict.fromkeys(calls, math.inf)
    for _ in range(repeat):
        for name, call in calls.items():
            began = time.process_time()
            call()
            found[name] = min(found[name], time.process_time() - began)
    return found


def measure(shape: tuple[int, ...], repeat: int, compiled: bool) -> None:
    x, a, b, past, z = (normals(i, shape) for i in range(5))
    arguments = (x, (a, b), past, z)
    wanted = written(*arguments)
    steps: dict[str, Callable[..., StepResult]] = {"as written": written, "reference": reference}
    seconds = 0.0
    if compiled:
        torch._dynamo.reset()
        steps["compiled"] = torch.compile(reference, dynamic=False)
        began = time.perf_counter()
        steps["compiled"](*arguments)
        seconds = time.perf_counter() - began
    found = best({name: partial(step, *arguments) for name, step in steps.items()}, repeat)
    print("x".join(map(str, shape)))
    for name, step in steps.items():
        result = step(*arguments)
        same = torch.equal(result.x, wanted.x) and torch.equal(result.x0, wanted.x0)
        bits = "the same bits" if same else "OTHER BITS"
        print(f"    {name:12s} {found[name] * 1e6:9.0f} us  {found['as written'] / found[name]:5.2f}x  {bits}")
    if compiled:
        saved = found["reference"] - found["compiled"]
        after = f"{seconds / saved:,.0f} steps" if saved > 0 else "never"
        print(f"    compile took {seconds:.1f} s; break-even against the reference: {after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out; it needs a C++ compiler"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"CPU, {options.threads} thread(s), torch {torch.__version__}, CPU time, best of {options.repeat}, float32"
    )
    for shape in SHAPES:
        measure(shape, options.repeat, not options.no_compile)
    print("normals, by the reference")
    for shape in SHAPES:
        seconds = best({"normals": partial(normals_reference, 1, shape)}, max(3, options.repeat // 4))["normals"]
        print(f"    {'x'.join(map(str, shape)):16s} {seconds / math.prod(shape) * 1e9:6.1f} ns each")


if __name__ == "__main__":
    main()
