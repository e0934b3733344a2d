"""`mezzotint chat`."""

from __future__ import annotations

import sys
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli import Flags
from mezzotint.cli.failures import CANCELLED, FAILED, report, say
from mezzotint.cli.graph_flags import GraphCommand, graph_argument, graph_of, inputs_of
from mezzotint.cli.options import (
    HELP,
    allow_option,
    debug_option,
    json_option,
    open_runtime,
    plugin_option,
    runtime_options,
)
from mezzotint.errors import MezzotintError, UserError, did_you_mean

if TYPE_CHECKING:
    from mezzotint.cli.display import Display
    from mezzotint.dialogue import Dialogue, Edit, Interpreter
    from mezzotint.graph import Graph
    from mezzotint.runtime import Runtime

__all__ = ["command"]

LEAVE = ("quit", "exit", "bye")
_RUNTIME = ("no_cache", "device", "dtype", "workers", "memory", "timeout", "retries", "fail_fast")


@click.command(
    "chat",
    cls=GraphCommand,
    context_settings=HELP,
    epilog="One instruction a line, from a terminal or a pipe; `what can I say` lists them, `quit` ends. "
    "Exit codes: 0 done, 1 an instruction or a node failed (in a pipe), 2 bad usage or graph, 130 cancelled.",
)
@graph_argument
@click.option(
    "--out", default="outputs", show_default=True, metavar="DIR", type=click.Path(path_type=Path),
    help="Where the pictures go.",
)  # fmt: skip
@click.option(
    "--dialogue", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="Keep what is said in this file, and go on from it if it is there.",
)  # fmt: skip
@click.option("--interpreter", default="words", show_default=True, metavar="NAME", help="Who reads what is said.")
@click.option(
    "--setting", "given_settings", multiple=True, metavar="NAME=VALUE", help="A setting of the interpreter's own."
)
@allow_option
@plugin_option
@runtime_options
@json_option("Print events as JSON lines, and each turn at its end.")
@click.option("--quiet", "-q", is_flag=True, help="Print the pictures' paths and what went wrong, nothing else.")
@debug_option
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Refine one picture in words, turn by turn."""
    from mezzotint.cli.run import _check_folder

    inputs = inputs_of(ctx, given["inputs"])
    settings = _settings(given["given_settings"])
    with closing(open_runtime(given["plugins"], **{name: given[name] for name in _RUNTIME})) as runtime:
        graph = graph_of(ctx).validate(runtime.registry, tuple(Path(p).resolve() for p in given["allow"]))
        dialogue = _begun(given["dialogue"], given["file"], inputs)
        interpreter = _interpreter(runtime, given["interpreter"], settings)
        _check_folder(given["out"])
        from mezzotint.cli.display import make_display

        shown = {"as_json": given["as_json"], "quiet": given["quiet"] or not given["as_json"]}
        if sys.stderr.isatty() and not given["quiet"]:
            shown["quiet"] = False
        flags = ctx.ensure_object(Flags)
        display = make_display(**shown, debug=flags.debug)
        chat = Chat(graph, runtime, dialogue, interpreter, settings, display, given, flags)
        with redirect_stdout(sys.stderr):
            return chat.go()


class Chat:
    """One sitting. dialogue: as it stands; each turn replaces it."""

    def __init__(
        self, graph: Graph, runtime: Runtime, dialogue: Dialogue, interpreter: Interpreter,
        settings: dict[str, str], display: Display, given: dict[str, Any], flags: Flags,
    ) -> None:  # fmt: skip
        self.graph, self.runtime, self.dialogue = graph, runtime, dialogue
        self.interpreter, self.settings, self.display = interpreter, settings, display
        self.out: Path = given["out"]
        self.file: Path | None = given["dialogue"]
        self.flags = flags
        self.talks = sys.stdin.isatty() and not given["quiet"] and not given["as_json"]
        self.described = {
            name: doc.model_dump(exclude_unset=True, by_alias=True) for name, doc in graph.doc.inputs.items()
        }
        self.failed = False

    def go(self) -> int:
        """Until the input ends. Gives the exit code."""
        try:
            if self.make(self.dialogue, None) == CANCELLED:
                return CANCELLED
            while (line := self.ask()) is not None:
                words = line.strip()
                if words.lower() in LEAVE:
                    break
                if words and not words.startswith("#") and self.turn(words) == CANCELLED and not self.talks:
                    return CANCELLED
        except KeyboardInterrupt:
            say("")
            return CANCELLED
        finally:
            self.display.close()
        return FAILED if self.failed and not self.talks else 0

    def ask(self) -> str | None:
        """The next line, or None at the end."""
        if self.talks:
            from mezzotint.cli.chat_terminal import ask

            return ask()
        try:
            return sys.stdin.readline() or None
        except UnicodeDecodeError:
            raise UserError("the instructions are not UTF-8 text") from None

    def turn(self, said: str) -> int:
        """One thing said: read it, make its picture, keep it. What fails leaves everything as it was."""
        try:
            edit = self.interpreter(self.dialogue, said, inputs=self.described, **self.settings)
            after = self.dialogue.after(said, edit)
            self.check(edit)
        except MezzotintError as error:
            self.failed = True
            report(error, self.flags)
            return FAILED
        if edit.text and self.talks:
            from mezzotint.cli.chat_terminal import answer

            answer(edit.text)
        elif edit.text:
            say(edit.text)
        code = 0 if edit.kind == "say" else self.make(after, edit)
        if code == 0:
            self.keep(after)
        return code

    def check(self, edit: Edit) -> None:
        """Raises: UserError: an edit of inputs that the graph has not, or beyond their range."""
        from mezzotint.written import check_written

        wrong: list[str] = []
        for name, value in edit.inputs.items():
            doc = self.graph.doc.inputs.get(name)
            if doc is None:
                wrong.append(f"{name}: the graph has no such input")
            elif value is not None:
                wrong += check_written(doc, value, name)
        if wrong:
            raise UserError("\n".join(wrong))

    def make(self, dialogue: Dialogue, edit: Edit | None) -> int:
        """The picture of a dialogue. Gives 0, FAILED, or CANCELLED where Ctrl-C stopped it."""
        from mezzotint.cli.interrupt import Interrupt
        from mezzotint.runner import run_graph

        with Interrupt() as interrupt:
            result = run_graph(
                self.graph, dialogue.inputs, self.runtime,
                out=self.out, runs=self.out.parent / "runs", cancel=interrupt.fresh_event(),
                on_event=self.display.event,
            )  # fmt: skip
        self.display.close()
        if result.status == "done":
            self.display.result(result)
            if self.talks:
                from mezzotint.cli.chat_terminal import show

                show([file.path for file in result.files])
            return 0
        self.failed = True
        if interrupt.asked:
            say("stopped; the picture before it stands, and what is finished is kept")
            return CANCELLED
        return FAILED

    def keep(self, dialogue: Dialogue) -> None:
        """Raises: UserError: the file cannot be written."""
        from mezzotint.dialogue import write_dialogue

        self.dialogue = dialogue
        if self.file is not None:
            write_dialogue(self.file, dialogue)
        if self.flags.json:
            turn = dialogue.to_json()["turns"][-1]
            self.display.line({"event": "turn", "number": len(dialogue.turns), **turn})  # type: ignore[attr-defined]


def _begun(file: Path | None, graph: str, inputs: dict[str, Any]) -> Dialogue:
    """A new dialogue, or the one in a file.

    Raises: UserError: one about another graph, or inputs for one that is there.
    """
    from mezzotint.dialogue import Dialogue, read_dialogue

    if file is None or not file.exists():
        return Dialogue(graph, inputs)
    found = read_dialogue(file)
    if found.graph != graph:
        raise UserError(
            f"{file} is a dialogue about {found.graph}, not about {graph}; give another --dialogue FILE"
        )
    if inputs:
        names = ", ".join(inputs)
        raise UserError(f"{file} has begun already, with its own inputs; leave out {names}, or say what to change")
    return found


def _interpreter(runtime: Runtime, name: str, settings: dict[str, str]) -> Interpreter:
    """Raises: UserError: no such interpreter, or one that has not these settings."""
    from inspect import Parameter, signature

    found = runtime.registry.interpreters.get(name)
    if found is None:
        there = sorted(runtime.registry.interpreters)
        near = did_you_mean(name, there)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(there)}"
        raise UserError(f"--interpreter: there is no {name!r}; {hint}")
    known = signature(found).parameters
    names = [n for n, p in known.items() if p.kind is Parameter.KEYWORD_ONLY and n != "inputs"]
    for setting in settings:
        if setting not in names and not any(p.kind is Parameter.VAR_KEYWORD for p in known.values()):
            raise UserError(
                f"--setting {setting}: {name!r} has no such setting; it has {', '.join(names) or 'none'}"
            )
    return found


def _settings(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier() or name == "inputs":
            raise UserError(f"--setting {name}: wanted NAME=VALUE")
        found[name] = value
    return found
