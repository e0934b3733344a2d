"""`mezzotint kernels`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mezzotint.cli.columns import print_columns
from mezzotint.cli.options import HELP, debug_option, json_option

if TYPE_CHECKING:
    from mezzotint_kernels.dispatch import Row

__all__ = ["command"]


@click.command(
    "kernels",
    context_settings=HELP,
    epilog="Exit codes: 0 all can run, 1 what is forced cannot run, 2 no kernels.",
)
@click.option(
    "--arch",
    metavar="ARCH",
    help="A GPU that need not be here: sm80 (A100), sm90 (H100), sm100 (B200), gfx942 (MI300X).",
)
@json_option("Print a list of {op, dtype, head_dim, backend, why, tile}.")
@debug_option
def command(arch: str | None, as_json: bool) -> int:
    """Show which implementation would run each kernel, and why."""
    from mezzotint.kernel_choices import kernel_choices

    found = kernel_choices(arch)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found.rows], indent=1, ensure_ascii=False))
    else:
        click.echo(found.where + "\n")
        print_columns(("OP", "INPUTS", "RUNS", "WHY"), list(_lines(found.rows)))
    return 1 if any(row.backend is None for row in found.rows) else 0


def _lines(rows: list[Row]) -> Iterator[tuple[str, str, str, str]]:
    """A line for each op and reason; for each dtype too, where the head sizes that it holds for differ."""
    groups: dict[tuple[str, str | None, str], dict[str, list[int]]] = {}
    for row in rows:
        sizes = groups.setdefault((row.op, row.backend, row.why), {}).setdefault(row.dtype, [])
        sizes.append(row.head_dim)
    for (op, backend, why), of_dtypes in groups.items():
        by_sizes: dict[tuple[int, ...], list[str]] = {}
        for dtype, sizes in of_dtypes.items():
            by_sizes.setdefault(tuple(sizes), []).append(dtype)
        for sizes_alike, dtypes in by_sizes.items():
            heads = f"; heads of {', '.join(map(str, sizes_alike))}" if any(sizes_alike) else ""
            yield op, ", ".join(dtypes) + heads, backend or "nothing", why
