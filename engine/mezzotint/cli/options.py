"""Options that several verbs share, and what is built from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mezzotint.cli import Flags

if TYPE_CHECKING:
    from mezzotint.runtime import Runtime
    from mezzotint.settings import Settings

__all__ = ["allow_option", "debug_option", "json_option", "open_runtime", "plugin_option", "runtime_options"]

F = TypeVar("F", bound=Callable[..., Any])

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _note(name: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def callback(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
        if value:
            setattr(ctx.ensure_object(Flags), name, True)
        return value

    return callback


def debug_option(fn: F) -> F:
    """`--debug`, which every verb has."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_note("debug"),
        help="Show tracebacks.",
    )(fn)


def json_option(text: str) -> Callable[[F], F]:
    """`--json`: what it prints is for machines, errors included."""
    return click.option("--json", "as_json", is_flag=True, is_eager=True, callback=_note("json"), help=text)


def plugin_option(fn: F) -> F:
    """`--plugin FILE.py`."""
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="FILE.py",
        type=click.Path(path_type=Path),
        help="A one-file plugin to load; its code runs.",
    )(fn)


def allow_option(fn: F) -> F:
    """`--allow DIR`."""
    return click.option(
        "--allow",
        multiple=True,
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="A folder that paths written in the graph may lie in, besides the graph's own.",
    )(fn)


_RUNTIME = (
    click.option("--no-cache", is_flag=True, help="Neither use nor keep stored results."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option(
        "--dtype",
        default="float32",
        show_default=True,
        help="What models compute in: float32, float16 or bfloat16.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Nodes that run side by side.  [default: by cores]",
    ),
    click.option(
        "--memory",
        metavar="SIZE",
        default="8GiB",
        show_default=True,
        help="Start no further node while values in memory take more.",
    ),
    click.option("--timeout", type=float, metavar="SECONDS", help="How long one node may take."),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        metavar="N",
        default=2,
        show_default=True,
        help="Further tries after failures that may pass.",
    ),
    click.option("--fail-fast", is_flag=True, help="Stop at the first node that fails."),
)


def runtime_options(fn: F) -> F:
    """How a run is carried out; `open_runtime` takes them all."""
    for option in reversed(_RUNTIME):
        fn = option(fn)
    return fn


def make_settings(
    *,
    device: str = "auto",
    dtype: str = "float32",
    workers: int | None = None,
    memory: str = "8GiB",
    timeout: float | None = None,
    retries: int = 2,
    fail_fast: bool = False,
) -> Settings:
    """The options as settings. Raises: UserError: if one makes no sense."""
    from mezzotint.settings import Settings
    from mezzotint.store import parse_size

    return Settings(
        device=device,
        dtype=dtype,
        workers=workers or 0,
        memory_limit=parse_size(memory, "--memory"),
        timeout=timeout,
        retries=retries,
        fail_fast=fail_fast,
    )


def open_runtime(plugins: tuple[Path, ...], *, no_cache: bool = False, **settings: Any) -> Runtime:
    """The registry and the store that a verb works with.

    Raises: UserError: for a setting that makes no sense. PluginError: for a broken plugin named here.
    Raises: StoreError: if the store cannot be used.
    """
    from mezzotint.runtime import default_runtime

    return default_runtime(plugins=plugins, settings=make_settings(**settings), persistent=not no_cache)
