"""How fast the kernels are on the GPU that is here, against what torch does best. Without a GPU it says so.

    python benchmarks/kernels.py [--op attention,noise_step] [--dtype float16] [--repeat 50] [--compile] [--json]

Times are medians of CUDA events around one call each, over several sets of inputs that together are larger than
the chip's cache ("cold", what a step of a sampler meets) and over one set again and again ("warm"). "torch" is the
op's reference on the same GPU: scaled-dot-product attention, or plain operations; --compile also tries
torch.compile of it. Ours and torch's take turns, so that a clock that changes changes both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]
MOST_SETS = 16
SPIN = 200_000
"""Clocks, about a tenth of a millisecond."""


@dataclass(frozen=True)
class Case:
    """op, label; make: a fresh set of inputs, as a call of the op on them, and their size in bytes."""

    op: str
    label: str
    make: Callable[[], tuple[Call, int]]


@dataclass(frozen=True)
class Result:
    """Milliseconds, medians. None: it did not run, and `why` says so."""

    op: str
    label: str
    cold: float | None
    cold_torch: float
    warm: float | None
    warm_torch: float
    cold_compiled: float | None = None
    why: str = ""


def on(device: torch.device, dtype: torch.dtype) -> list[Case]:
    """The layers of SD 1.5 and SDXL, video of 16 frames, and steps of images and of video."""

    def random(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

    def case(
        op: str, label: str, build: Callable[[], tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]
    ) -> Case:
        def make() -> tuple[Call, int]:
            function, args, kwargs = build()
            size = sum(t.numel() * t.element_size() for t in _tensors([*args, *kwargs.values()]))
            return (lambda: function(*args, **kwargs)), size

        return Case(op, label, make)

    def heads(batch: int, tokens: int, count: int, size: int) -> Tensor:
        """[B, H, N, D] as a linear layer leaves it: heads inside the tokens."""
        return random(batch, tokens, count, size).transpose(1, 2)

    return [
        *_attentions(case, heads),
        *_shared_keys(case, heads, device),
        *_temporal(case, random),
        *_edits(case, heads, device),
        *_steps(case, random, device),
        *_layers(case, random),
    ]


def _attentions(case: Any, heads: Any) -> Iterator[Case]:
    from mezzotint_kernels.dense import attention

    for what, batch, count, n, m, size in (
        ("SD 1.5 self", 2, 8, 4096, 4096, 40),
        ("SD 1.5 self", 2, 8, 1024, 1024, 80),
        ("SD 1.5 self", 2, 8, 256, 256, 160),
        ("SD 1.5 text", 2, 8, 4096, 77, 40),
        ("SDXL self", 2, 10, 4096, 4096, 64),
        ("two streams", 1, 24, 4608, 4608, 128),
    ):

        def build(batch=batch, count=count, n=n, m=m, size=size):
            return attention, (heads(batch, n, count, size), *(heads(batch, m, count, size) for _ in "kv")), {}

        yield case("attention", f"{what}, {n}x{m}, D{size}", build)


def _shared_keys(case: Any, heads: Any, device: torch.device) -> Iterator[Case]:
    from mezzotint_kernels import attention_indexed, attention_terms

    frames = 16
    table = torch.tensor([[0, max(i - 1, 0)] for i in range(frames)], dtype=torch.int32, device=device)
    for tokens, size in ((4096, 40), (1024, 80)):

        def indexed(tokens=tokens, size=size):
            return attention_indexed, (*(heads(frames, tokens, 8, size) for _ in "qkv"), table), {}

        def terms(tokens=tokens, size=size):
            rows = torch.arange(frames, dtype=torch.int32, device=device)[:, None].expand(-1, 2).contiguous()
            return attention_terms, (*(heads(frames, tokens, 8, size) for _ in "qkv"), rows, table[..., None]), {}

        yield case("attention_indexed", f"sparse-causal, 16 frames of {tokens}, D{size}", indexed)
        yield case("attention_terms", f"two terms, 16 frames of {tokens}, D{size}", terms)


def _temporal(case: Any, random: Any) -> Iterator[Case]:
    from mezzotint_kernels import temporal_attention

    for pixels, size in ((4096, 40), (1024, 80), (256, 160)):

        def build(pixels=pixels, size=size):
            return temporal_attention, tuple(random(2, 16, pixels, 8, size) for _ in "qkv"), {}

        yield case("temporal_attention", f"16 frames, {pixels} pixels, D{size}", build)


def _edits(case: Any, heads: Any, device: torch.device) -> Iterator[Case]:
    from mezzotint_kernels import p2p_attention

    for tokens, size in ((4096, 40), (1024, 80), (256, 160)):

        def build(tokens=tokens, size=size):
            mapping, alpha = torch.eye(77, device=device), torch.full((77,), 0.5, device=device)
            given = {"mapping": mapping, "alpha": alpha, "c": torch.ones(77, device=device)}
            q, k, v = heads(4, tokens, 8, size), heads(4, 77, 8, size), heads(4, 77, 8, size)
            return p2p_attention, (q, k, v, [0, 1, 0, 1]), given

        yield case("p2p_attention", f"two edits of four, {tokens}x77, D{size}", build)


def _steps(case: Any, random: Any, device: torch.device) -> Iterator[Case]:
    from mezzotint_kernels import Coefficients, Draw, noise_step, normals

    row = Coefficients(ax=1.1, am=-0.4, lo=-1.0, hi=1.0, cx=0.3, c0=0.7, cz=0.2)
    for what, shape in (
        ("latent", (4, 4, 64, 64)),
        ("video latent", (2, 4, 16, 64, 64)),
        ("pixels", (4, 3, 1024, 1024)),
    ):

        def build(shape=shape):
            x = random(*shape, dtype=torch.float32)
            given = {"weights": (-6.5, 7.5), "noise": Draw(seed=1, step=3), "next_dtype": torch.float16}
            return noise_step, (x, [random(*shape), random(*shape)], row), given

        def draw(shape=shape):
            return normals, (1, shape), {"device": device, "step": 3}

        yield case("noise_step", f"guidance and noise, {what} {'x'.join(map(str, shape))}", build)
        yield case("normals", f"{what} {'x'.join(map(str, shape))}", draw)


def _layers(case: Any, random: Any) -> Iterator[Case]:
    try:
        from mezzotint_kernels import geglu, norm_silu
    except ImportError:
        return
    for channels, side in ((320, 64), (1280, 16)):

        def norm(channels=channels, side=side):
            return norm_silu, (random(2, channels, side, side), 32, random(channels), random(channels)), {}

        def gate(channels=channels, side=side):
            return geglu, (random(2, side * side, 8 * channels),), {}

        yield case("norm_silu", f"{channels} channels of {side}x{side}, 32 groups", norm)
        yield case("geglu", f"{side * side} tokens of {4 * channels}", gate)


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """MEZZOTINT_KERNELS for a while."""
    before = os.environ.get("MEZZOTINT_KERNELS")
    os.environ["MEZZOTINT_KERNELS"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["MEZZOTINT_KERNELS"]
        else:
            os.environ["MEZZOTINT_KERNELS"] = before


def median_times(calls: dict[str, list[Call]], repeat: int) -> dict[str, float]:
    """Milliseconds for each name ("triton", "torch"); the names take turns, each over its calls in a circle."""
    for name, several in calls.items():
        with backend(name):
            for call in several * (1 + 3 // len(several)):
                call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeat):
        for name, several in calls.items():
            with backend(name):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                # Keeps the GPU busy while the host enqueues, so that launches cost nothing.
                torch.cuda._sleep(SPIN)
                start.record()
                several[i % len(several)]()
                end.record()
                end.synchronize()
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(case: Case, repeat: int, cache: int, with_compile: bool) -> Result:
    first, size = case.make()
    sets = min(MOST_SETS, max(2, 1 + 2 * cache // max(size, 1)))
    calls = [first, *(case.make()[0] for _ in range(sets - 1))]
    names, why = ["triton", "torch"], ""
    try:
        with backend("triton"):
            first()
    except ValueError as error:
        names, why = ["torch"], str(error)
    cold = median_times(dict.fromkeys(names, calls), repeat)
    warm = median_times(dict.fromkeys(names, calls[:1]), repeat)
    compiled = _compiled(calls, repeat) if with_compile else None
    return Result(
        case.op, case.label, cold.get("triton"), cold["torch"], warm.get("triton"), warm["torch"], compiled, why
    )


def _compiled(calls: list[Call], repeat: int) -> float | None:
    """The reference compiled; None where torch.compile cannot."""
    try:
        with backend("torch"):
            several = [torch.compile(call) for call in calls]
            return median_times({"torch": several}, repeat)["torch"]
    except Exception as error:  # whatever a compiler raises; the rest of the table is still of use
        print(f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
        return None


def show(results: list[Result]) -> str:
    """A line for each result; the ratio is torch's time over ours, above 1 where ours is faster."""
    columns = ("cold ms", "torch", "ratio", "warm ms", "torch", "ratio", "compiled")
    lines = [" " * 64 + "".join(f"{name:>{10 - 3 * (name == 'ratio')}s}" for name in columns)]
    for r in results:
        cells = f"{r.op}: {r.label}"[:63].ljust(64)
        for ours, theirs in ((r.cold, r.cold_torch), (r.warm, r.warm_torch)):
            ratio = "-" if ours is None else f"{theirs / ours:.2f}"
            cells += f"{'-' if ours is None else f'{ours:.4f}':>10s}{theirs:10.4f}{ratio:>7s}"
        compiled = "" if r.cold_compiled is None else f"{r.cold_compiled:.4f}"
        lines.append(f"{cells}{compiled:>10s}  {r.why}".rstrip())
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", default="", help="only these, with commas")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--repeat", type=int, default=50, help="measurements of each")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the reference too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error(f"--repeat: wanted 1 or more; got {options.repeat}")
    if not torch.cuda.is_available():
        print(f"No GPU here (torch {torch.__version__} sees none): nothing was measured.")
        return 0
    device = torch.device("cuda", torch.cuda.current_device())
    cases = on(device, getattr(torch, options.dtype))
    wanted = {name.strip() for name in options.op.split(",") if name.strip()}
    if unknown := wanted - {case.op for case in cases}:
        parser.error(
            f"--op: no {', '.join(sorted(unknown))}; there are {', '.join(dict.fromkeys(c.op for c in cases))}"
        )
    properties = torch.cuda.get_device_properties(device)
    results = []
    for case in cases:
        if not wanted or case.op in wanted:
            print(f"{case.op}: {case.label}", file=sys.stderr)
            with torch.inference_mode():
                results.append(measure(case, options.repeat, properties.L2_cache_size, options.compile))
    about = {
        "device": properties.name,
        "torch": torch.__version__,
        "dtype": options.dtype,
        "repeat": options.repeat,
    }
    if options.json:
        print(json.dumps({**about, "results": [asdict(result) for result in results]}, indent=1))
    else:
        print(", ".join(f"{key}: {value}" for key, value in about.items()))
        print(show(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
