"""The command line. Start-up is a feature: a verb's module is loaded when the verb is used."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass

import click

__all__ = ["VERBS", "Flags", "main", "mezzotint"]

VERBS = {
    "run": ("run", "Run a graph and write its outputs."),
    "chat": ("chat", "Refine one picture in words, turn by turn."),
    "validate": ("validate", "Check graphs: every problem, with its place in the file."),
    "plan": ("plan", "Show what a run would do: steps, what is cached, what would be loaded."),
    "nodes": ("nodes", "List the installed nodes, or show one of them."),
    "plugins": ("plugins", "List the plugins: what each gives, and what went wrong."),
    "kernels": ("kernels", "Show which implementation would run each kernel, and why."),
    "schema": ("schema", "Print the JSON Schema of graph files, for editors."),
    "cache": ("cache", "Look after the store of results."),
    "runs": ("runs", "Look at the records of past runs, and compare them."),
    "new-plugin": ("new_plugin", "Write the beginnings of a plugin package."),
    "doctor": ("doctor", "Check the installation."),
}
"""Each verb's module and its one line of help, which the module repeats: reading it must not import anything."""


@dataclass
class Flags:
    """What decides how a failure is shown, noted while the command line is parsed."""

    debug: bool = False
    json: bool = False


class Verbs(click.Group):
    """The verbs, imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"mezzotint.cli.{VERBS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(_unknown_verb(args[0]), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


def _unknown_verb(word: str) -> str:
    if word.endswith((".json", ".png")) or word.startswith("bundled:"):
        return f"to run a graph, write: mezzotint run {word}"
    from mezzotint.errors import did_you_mean

    near = did_you_mean(word, VERBS)
    return f"there is no verb {word!r}" + (
        f"; did you mean {near!r}?" if near else f"; there are {', '.join(VERBS)}"
    )


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from mezzotint import __version__

        click.echo(f"mezzotint {__version__}")
        ctx.exit()


def _print_completion(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value and not ctx.resilient_parsing:
        from click.shell_completion import get_completion_class

        found = get_completion_class(value)
        assert found is not None
        click.echo(found(mezzotint, {}, "mezzotint", "_MEZZOTINT_COMPLETE").source())
        ctx.exit()


def _note_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Flags).debug = True


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="`mezzotint VERB --help` says more; `mezzotint run FILE --help` lists the inputs of that graph.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@click.option(
    "--completion",
    type=click.Choice(["bash", "zsh", "fish"]),
    is_eager=True,
    expose_value=False,
    callback=_print_completion,
    help='Print completion for a shell: eval "$(mezzotint --completion bash)".',
)
@click.option("--debug", is_flag=True, expose_value=False, callback=_note_debug, help="Show tracebacks.")
def mezzotint() -> None:
    """Run graphs of typed nodes that make images and video, without a server or a browser."""


def run_verbs(args: list[str]) -> int:
    """Run one command line and give its exit code: 0 done, 1 failed, 2 bad usage or graph, 130 cancelled."""
    flags = Flags(debug=os.environ.get("MEZZOTINT_DEBUG", "") not in ("", "0"))
    try:
        code = mezzotint.main(args or ["--help"], prog_name="mezzotint", standalone_mode=False, obj=flags)
        return code if isinstance(code, int) else 0
    except BaseException as error:
        from mezzotint.cli.failures import report

        return report(error, flags)


def main(args: list[str] | None = None) -> None:
    """The entry point; leaves the process with the exit code. args: in place of the process's own."""
    code = run_verbs(sys.argv[1:] if args is None else args)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has seen enough; nothing may complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
