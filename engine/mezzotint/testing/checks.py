"""What every node promises, checked on one call: `check_node`."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from mezzotint.errors import MezzotintError, PluginError
from mezzotint.nodes import NodeSpec, spec_of
from mezzotint.signature import described
from mezzotint.testing.contexts import FakeContext, fake_context
from mezzotint.values import Value

__all__ = ["check_node"]

_HEAVY = ("torch", "diffusers", "transformers", "torchvision", "accelerate")


def check_node(fn: Callable[..., Any], *, ctx: FakeContext | None = None, **inputs: Any) -> dict[str, Any]:
    """Call a node twice and check what every node promises; gives its outputs by name.

    Its inputs' schemas are JSON; the literals given fit them; the docstring has a line for each input; the outputs
    are of the declared types and can be stored; the inputs are left as they were; the second call gives the same
    bits (unless the node says `cacheable=False`); importing its module imports no torch.

    ctx: a context to use for the first call, if the node needs assets or loaders that you give.

    Raises: AssertionError: with all that is wrong. PluginError: if `fn` is not a node.
    """
    spec = spec_of(fn)
    problems = [*_interface_problems(spec), *_input_problems(spec, inputs)]
    if problems:
        raise AssertionError(_listed(spec, problems))
    before = snapshot(inputs)
    outputs = _call(spec, inputs, ctx)
    if not same(before, inputs):
        problems.append("it changes its inputs; make new tensors instead")
    problems += _storing_problems(outputs)
    if spec.cacheable and not problems:
        kept = snapshot(outputs)
        if not same(kept, _call(spec, inputs, ctx and ctx.fresh())):
            problems.append("a second call gives other outputs; draw noise from ctx.noise(seed)")
    if problems:
        raise AssertionError(_listed(spec, problems))
    return outputs


def _listed(spec: NodeSpec, problems: list[str]) -> str:
    return "\n  ".join([f"node {spec.use}:", *problems])


def _call(spec: NodeSpec, inputs: Mapping[str, Any], ctx: FakeContext | None) -> dict[str, Any]:
    with ctx or fake_context(node_type=spec.id) as context:
        try:
            return spec.call(context, inputs)
        except PluginError as error:
            raise AssertionError(str(error)) from error


def _interface_problems(spec: NodeSpec) -> list[str]:
    problems = []
    if not spec.summary:
        problems.append("it has no docstring")
    documented = described(spec.doc)
    problems += [f"the docstring has no line '{n}: ...'" for n in spec.inputs if n not in documented]
    for name, given in spec.inputs.items():
        schema = given.json_schema()
        try:
            unchanged = json.loads(json.dumps(schema, allow_nan=False)) == schema
        except (TypeError, ValueError) as error:
            problems.append(f"input {name!r}: its JSON schema is no JSON: {error}")
        else:
            if not unchanged:
                problems.append(f"input {name!r}: its JSON schema changes when it is written and read")
    heavy = imports_heavy(spec.fn.__module__)
    if heavy:
        problems.append(f"importing {spec.fn.__module__} imports {heavy}; import it in the node's body")
    return problems


def _input_problems(spec: NodeSpec, inputs: Mapping[str, Any]) -> list[str]:
    problems = [f"it has no input {name!r}" for name in inputs if name not in spec.inputs]
    for name, given in spec.inputs.items():
        if name not in inputs:
            if given.required:
                problems.append(f"input {name!r} is required; give check_node a value")
            continue
        value = inputs[name]
        port = given.type.port
        if port is not None:
            if not isinstance(value, port) and not (value is None and given.type.optional):
                problems.append(f"input {name!r}: wanted {port.port_name}, got {type(value).__name__}")
        elif not given.holds_ports and given.type.name not in ("file", "source"):
            try:
                given.adapter.validate_python(value)
            except ValueError as error:
                problems.append(f"input {name!r}: {error}")
    return problems


def _storing_problems(outputs: Mapping[str, Any]) -> list[str]:
    from mezzotint.codec import encode

    problems = []
    for name, value in outputs.items():
        try:
            encode(value)
        except MezzotintError as error:
            problems.append(f"output {name!r} cannot be stored: {error}")
    return problems


def snapshot(value: Any) -> Any:
    """A deep copy of tensors, values, lists and dicts, to compare with later."""
    if isinstance(value, Value):
        fields = dataclasses.fields(value)
        return (type(value).__qualname__, {f.name: snapshot(getattr(value, f.name)) for f in fields})
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [snapshot(item) for item in value]
    return value.detach().clone() if hasattr(value, "detach") else value


def same(before: Any, after: Any) -> bool:
    """Whether a snapshot still describes a value, bit by bit."""
    return _same(before, snapshot(after))


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if hasattr(a, "detach"):
        import torch

        return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    return bool(a == b or (a != a and b != b))


@cache
def imports_heavy(module: str) -> str:
    """The first heavy package that importing `module` in a fresh process imports, or an empty string."""
    file = getattr(sys.modules.get(module), "__file__", None)
    code = (
        "import importlib, importlib.util, sys\n"
        f"spec = importlib.util.find_spec({module!r})\n"
        f"assert spec is not None and spec.origin == {file!r}\n"
        f"importlib.import_module({module!r})\n"
        f"print(next((m for m in {_HEAVY!r} if m in sys.modules), ''))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode == 0:
        return done.stdout.strip().rpartition("\n")[2]
    # A test's own module or a one-file plugin, which no fresh process finds by name.
    return _imports_in_source(file) if file else ""


def _imports_in_source(file: str) -> str:
    with open(file, encoding="utf-8") as source:
        tree = ast.parse(source.read())
    for statement in tree.body:
        names = [a.name for a in statement.names] if isinstance(statement, ast.Import) else []
        if isinstance(statement, ast.ImportFrom) and statement.level == 0:
            names = [statement.module or ""]
        for name in names:
            if name.partition(".")[0] in _HEAVY:
                return name.partition(".")[0]
    return ""
