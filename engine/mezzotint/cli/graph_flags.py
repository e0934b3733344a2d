"""A verb that takes a graph file: the graph's own inputs become flags, with help and checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli import Flags
from mezzotint.cli.completion import complete_graph
from mezzotint.cli.failures import printable
from mezzotint.errors import MezzotintError, UserError, did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from mezzotint.document import InputDoc
    from mezzotint.reading import GraphFile

__all__ = ["GraphCommand", "graph_argument", "graph_of", "inputs_of"]

_GRAPH, _FLAGS = "mezzotint.graph", "mezzotint.flags"
_JSON = ("string", "integer", "number", "boolean", "array", "object")


class GraphCommand(click.Command):
    """A command whose argument FILE is a graph, and whose options are its own and the graph's inputs."""

    takes_graph = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = ctx.ensure_object(Flags)  # reading FILE may fail before click comes to these
        flags.json, flags.debug = flags.json or "--json" in args, flags.debug or "--debug" in args
        name = find_graph(args, _own_flags(super().get_params(ctx)))
        if name is not None:
            self._read(ctx, name)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            graph: GraphFile | None = ctx.meta.get(_GRAPH)
            if graph is None:
                raise
            raise click.UsageError(_no_such_flag(error.option_name, graph, str(name)), ctx) from None

    def _read(self, ctx: click.Context, name: str) -> None:
        from mezzotint.reading import read_file

        try:
            graph = read_file(name)
        except MezzotintError:
            if ctx.resilient_parsing:  # completion: what cannot be read has no flags
                return
            raise
        ctx.meta[_GRAPH] = graph
        ctx.meta[_FLAGS] = input_options(graph, _own_flags(super().get_params(ctx)))

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get(_FLAGS, ())]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        graph: GraphFile | None = ctx.meta.get(_GRAPH)
        rows = [row for p in ctx.meta.get(_FLAGS, ()) if (row := p.get_help_record(ctx))]
        rows += _only_by_input(graph, ctx.meta[_FLAGS]) if graph is not None else []
        if graph is not None and graph.doc.description:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(printable(graph.doc.description))
        if rows and graph is not None:
            with formatter.section(printable(f"Inputs of {graph.doc.name or graph.path.stem}")):
                formatter.write_dl(rows)
        own = [p for p in super().get_params(ctx) if isinstance(p, click.Option)]
        with formatter.section("Options"):
            formatter.write_dl([row for p in own if (row := p.get_help_record(ctx))])


def graph_argument(fn: Any) -> Any:
    """FILE and `--input NAME=VALUE`, which every such verb has."""
    fn = click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=VALUE",
        help="An input of the graph, also one whose flag would clash with an option here.",
    )(fn)
    return click.argument("file", metavar="FILE", shell_complete=complete_graph)(fn)


def graph_of(ctx: click.Context) -> GraphFile:
    """The graph that the command line names."""
    graph: GraphFile = ctx.meta[_GRAPH]
    return graph


def inputs_of(ctx: click.Context, named: Iterable[str]) -> dict[str, Any]:
    """The inputs that were given, by flags and as NAME=VALUE, as JSON values in range.

    Raises: UserError: naming every flag that is wrong.
    """
    graph = graph_of(ctx)
    wrong: list[str] = []
    texts: dict[str, tuple[str, list[str]]] = {}
    for option in ctx.meta.get(_FLAGS, ()):
        given = ctx.params.get(option.name)
        if given is not None and given != ():
            words = [str(v).lower() if isinstance(v, bool) else v for v in (given if option.multiple else [given])]
            texts[option.input] = (option.opts[0], words)
    for pair in named:
        name, equals, value = pair.partition("=")
        if not equals or name not in graph.doc.inputs:
            wrong.append(_bad_pair(pair, graph))
        elif name in texts and texts[name][0] != f"--input {name}":
            wrong.append(f"--input {name}: it is given by {texts[name][0]} too")
        else:
            texts.setdefault(name, (f"--input {name}", []))[1].append(value)
    values = {name: _value(graph.doc.inputs[name], *each, wrong) for name, each in texts.items()}
    if wrong:
        raise UserError("\n".join(wrong))
    return values


def _bad_pair(pair: str, graph: GraphFile) -> str:
    name, equals, _ = pair.partition("=")
    if not equals:
        return f"--input {pair}: wanted NAME=VALUE"
    near = did_you_mean(name, graph.doc.inputs)
    hint = f"; did you mean {near!r}?" if near else f"; it has {', '.join(graph.doc.inputs) or 'none'}"
    return f"--input {name}: the graph has no such input{hint}"


def _value(doc: InputDoc, flag: str, texts: list[str], wrong: list[str]) -> Any:
    from mezzotint.written import check_written, written_list, written_value

    if doc.type not in _JSON:
        wrong.append(f"{flag}: a {doc.type} comes from another graph, not from a command line")
        return None
    if doc.type != "array" and len(texts) > 1:
        wrong.append(f"{flag}: given {len(texts)} times")
        return None
    try:
        value = written_list(doc, texts) if doc.type == "array" else written_value(doc, texts[0])
    except ValueError as error:
        wrong.append(f"{flag}: {error}, got {texts[-1]!r}")
        return None
    wrong += check_written(doc, value, flag) or _missing_files(doc, value, flag)
    return value


def _missing_files(doc: InputDoc, value: Any, flag: str) -> list[str]:
    from mezzotint.paths import FileAccess

    item = doc.items if doc.type == "array" and doc.items is not None else doc
    wrong = []
    for path in (value if isinstance(value, list) else [value]) if item.is_file else ():
        try:
            if path is not None:
                FileAccess.resolve_trusted(path)
        except UserError as error:
            wrong.append(f"{flag}: {error}")
    return wrong


class InputOption(click.Option):
    """The flag of one of the graph's inputs. input: its name there."""

    def __init__(self, name: str, doc: InputDoc, default: Any, given: bool, taken: Mapping[str, bool]) -> None:
        self.input = name
        self.doc = doc
        self.shown = default
        self.required_input = doc.required and not given
        boolean = doc.type == "boolean"
        super().__init__(
            [*_spellings(name, boolean, taken), f"input_{name}"],
            multiple=doc.type == "array",
            default=None,
            expose_value=True,
            type=bool if boolean else str,
            **({"is_flag": True} if boolean else {}),
            help=doc.description,
            shell_complete=_complete_value,
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        from mezzotint.written import value_words

        flag = self.opts[0]
        if self.doc.type == "boolean":
            shown = f"{flag} / {self.secondary_opts[0]}" if self.secondary_opts else flag
        else:
            shown = printable(f"{flag} {value_words(self.doc)}")
        return shown, _help_text(self.doc, self.shown, self.required_input)


def _help_text(doc: InputDoc, default: Any, required: bool) -> str:
    from mezzotint.written import value_range

    notes = [] if doc.enum or not value_range(doc) else [value_range(doc)]
    if required:
        notes.append("required")
    elif default is not None:
        notes.append(f"default: {_short(default)}")
    more = f"  [{'; '.join(notes)}]" if notes else ""
    return printable(f"{' '.join(doc.description.split())}{more}".strip())


def _only_by_input(graph: GraphFile, options: Iterable[InputOption]) -> list[tuple[str, str]]:
    """Help for the inputs whose flags would clash with the verb's own."""
    from mezzotint.written import value_words

    flags = {option.input for option in options}
    left = {n: d for n, d in graph.doc.inputs.items() if n not in flags and d.type in _JSON}
    return [
        (f"--input {name}={value_words(doc)}", _help_text(doc, graph.given.get(name, doc.default), doc.required))
        for name, doc in left.items()
    ]


def _no_such_flag(flag: str, graph: GraphFile, name: str) -> str:
    word = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
    near = did_you_mean(word, graph.doc.inputs)
    if near:
        return f"no such option {flag}; did you mean --{near.replace('_', '-')}?"
    return f"no such option {flag}; the inputs of {name} are: {', '.join(graph.doc.inputs) or 'none'}"


def input_options(graph: GraphFile, taken: Mapping[str, bool]) -> list[InputOption]:
    """A flag for each input that a command line can give; `taken` are the verb's own flags."""
    options = []
    used = dict(taken)
    for name, doc in graph.doc.inputs.items():
        if doc.type in _JSON and _spellings(name, False, used):
            given = name in graph.given
            options.append(InputOption(name, doc, graph.given[name] if given else doc.default, given, used))
            used |= dict.fromkeys((*options[-1].opts, *options[-1].secondary_opts), True)
    return options


def _spellings(name: str, boolean: bool, taken: Mapping[str, bool]) -> list[str]:
    """`--cfg-scale` and `--cfg_scale`, those that are free; with their opposites for a boolean."""
    words = [w for w in dict.fromkeys((name.replace("_", "-"), name)) if f"--{w}" not in taken]
    if not boolean:
        return [f"--{w}" for w in words]
    return [f"--{w}/--no-{w}" if f"--no-{w}" not in taken else f"--{w}" for w in words]


def _short(value: Any, limit: int = 60) -> str:
    import json

    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _complete_value(ctx: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    assert isinstance(option, InputOption)
    if option.doc.is_file:
        return [CompletionItem(incomplete, type="file")]
    words = [str(w) for w in option.doc.enum or ()]
    return [CompletionItem(w) for w in words if w.startswith(incomplete)]


def _own_flags(params: Iterable[click.Parameter]) -> dict[str, bool]:
    """The flags of a verb, and whether each takes a value."""
    options = [p for p in params if isinstance(p, click.Option)]
    flags = {o: not p.is_flag for p in options for o in (*p.opts, *p.secondary_opts)}
    return {**flags, "--help": False, "-h": False}


def find_graph(args: list[str], own: Mapping[str, bool]) -> str | None:
    """The argument FILE among arguments whose flags are not all known before FILE is read.

    A word after an unknown flag may be its value: it is FILE only if no other word is, and it looks like one.
    """
    sure: str | None = None
    doubtful: list[str] = []
    at = 0
    while at < len(args):
        word = args[at]
        at += 1
        if word == "--" or not word.startswith("-") or word == "-":
            sure = args[at] if word == "--" and at < len(args) else word
            break
        flag, equals, _ = word.partition("=")
        if equals or not own.get(flag, True) or at == len(args):
            continue
        if flag in own:
            at += 1
        elif not args[at].startswith("--"):
            doubtful.append(args[at])
            at += 1
    if sure is not None and (_looks_like_a_graph(sure) or not doubtful):
        return sure
    return next((w for w in doubtful if _looks_like_a_graph(w)), sure)


def _looks_like_a_graph(word: str) -> bool:
    if word.startswith("bundled:"):
        return True
    return word.lower().endswith((".json", ".png")) and Path(word).is_file()
