"""What an injector that is off costs: an evaluation of the bundled denoiser with it and without it, as ratios.

    python benchmarks/attention_off.py [--repeat 40] [--batch 2] [--threads 1]

All run in turn in one process, and the best of each counts, in CPU time of all threads, so that what else the
machine does falls on all of them alike. 1.00 is no cost; the row `plain again` is the same model, and says how
far the figures can be trusted. Every row must give the same bits as the first.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import torch

from mezzotint import Conditioning, Context, Injector, NoiseLevel, Source
from mezzotint_attention import Injection, Opened, Sites
from mezzotint_kernels import normals
from mezzotint_models import register_loaders
from mezzotint_models.checkpoint import checkpoint
from mezzotint_smallworld import resolve_source

LEVEL = NoiseLevel(0.6, 0.8, 500.0, step=10, steps=20)


class Idle(Injection):
    """Would double all attention; here its time is over."""

    def open(self, model: Any, ctx: Any) -> Opened:
        return _Idle()


class _Idle(Opened):
    def attend(self, call: Any, attend: Any) -> torch.Tensor:
        return attend(call) * 2


class Declining(Injection):
    """Looks at each evaluation, and leaves it as it is."""

    def open(self, model: Any, ctx: Any) -> Opened:
        return _Declining()


class _Declining(Opened):
    def begin(self, evaluation: Any) -> bool:
        return False


def bundled() -> tuple[Any, Context]:
    """The realised denoiser of bundled:smallworld, and a context."""
    path = str(resolve_source("bundled:smallworld"))
    recipe = checkpoint(Source("bundled:smallworld", path, "0" * 64)).denoiser
    loaders: dict[str, Callable[..., Any]] = {}
    register_loaders(loaders.__setitem__)
    ctx = Context(SimpleNamespace(device="cpu", dtype="float32", node_type="benchmark"))
    return loaders[recipe.loader](recipe, ctx), ctx


def best(calls: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """CPU seconds of the fastest call of each, called in turn."""
    found = dict.fromkeys(calls, math.inf)
    for _ in range(repeat):
        for name, call in calls.items():
            began = time.process_time()
            call()
            found[name] = min(found[name], time.process_time() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, ctx = bundled()
    x = normals(1, (options.batch, 8, 16, 16))
    width = int(model.module.config.cross_attention_dim)
    told = Conditioning(context=normals(2, (options.batch, 32, width)))
    through: Injector = lambda call, attend: attend(call)  # noqa: E731
    with ExitStack() as stack, torch.no_grad():
        off = {
            "plain": model,
            "plain again": model,
            "outside of its window": stack.enter_context(Idle(sites=Sites(), end=0.1).apply(model, ctx)),
            "declines each evaluation": stack.enter_context(Declining(sites=Sites()).apply(model, ctx)),
        }
        eight: Any = model
        for _ in range(8):
            eight = stack.enter_context(Idle(sites=Sites(), end=0.1).apply(eight, ctx))
        off["eight outside of theirs"] = eight
        calls = {name: (lambda one=one: one.predict(x, LEVEL, told).outputs[0]) for name, one in off.items()}

        def passed_on() -> torch.Tensor:
            with model.inject(through, model.attention_sites):
                return model.predict(x, LEVEL, told).outputs[0]

        calls["on, and passes all calls on"] = passed_on
        found = best(calls, options.repeat)
        wanted = calls["plain"]()
        how = f"{options.threads} thread(s), torch {torch.__version__}, batch {options.batch}"
        print(f"CPU, {how}, best of {options.repeat}")
        for name, call in calls.items():
            bits = "the same bits" if torch.equal(call(), wanted) else "OTHER BITS"
            print(f"    {name:28s} {found[name] * 1e3:8.2f} ms  {found[name] / found['plain']:6.3f}x  {bits}")


if __name__ == "__main__":
    main()
