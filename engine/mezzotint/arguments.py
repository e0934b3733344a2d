"""From a step's planned inputs to the arguments of its function, each of the type that the function asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.errors import UserError
from mezzotint.literals import FileRef, type_name
from mezzotint.plan import Step, StepOutput, file_refs
from mezzotint.values import Port, Source, Value

if TYPE_CHECKING:
    from mezzotint.nodes import NodeSpec
    from mezzotint.signature import EdgeType, InputSpec

__all__ = ["Arguments"]


class Arguments:
    """values: outputs of the steps done so far, by key. digest: of a file's content, now."""

    def __init__(self, values: Mapping[str, Mapping[str, Any]], digest: Callable[[str], str]) -> None:
        self._values = values
        self._digest = digest

    def of(self, step: Step, spec: NodeSpec) -> dict[str, Any]:
        """The arguments by name.

        Raises: UserError: for a value of the wrong type, or a file that has changed since the run was planned.
        """
        self.check_files(step)
        return {name: self._made(spec.inputs[name], tree) for name, tree in step.inputs.items()}

    def check_files(self, step: Step) -> None:
        """What is read must be what was planned for: the step's key says so.

        Raises: UserError: if a file of the step has changed since.
        """
        for ref in file_refs(dict(step.inputs)):
            if ref.digest and self._digest(ref.path) != ref.digest:
                raise UserError(f"{ref.text!r} has changed since the run was planned; run again")

    def _made(self, spec: InputSpec, tree: Any) -> Any:
        if not isinstance(tree, (StepOutput, FileRef, list, dict)):
            return tree  # a literal, checked and canonical
        value = self._filled(tree)
        if value is None and spec.type.optional:
            return None
        if spec.holds_ports:
            return self._ports(spec, spec.type, value)
        if spec.holds_files:
            return self._paths(spec, value)
        return _checked(spec, value)

    def _filled(self, tree: Any) -> Any:
        if isinstance(tree, StepOutput):
            return self._values[tree.key][tree.port]
        if isinstance(tree, FileRef):
            if tree.kind == "file":
                return Path(tree.path)
            return Source(uri=tree.text, path=tree.path, fingerprint=tree.digest)
        if isinstance(tree, list):
            return [self._filled(part) for part in tree]
        if isinstance(tree, dict):  # in one order, whatever the graph's: keys know of none
            return {key: self._filled(part) for key, part in sorted(tree.items())}
        return tree

    def _ports(self, spec: InputSpec, wanted: EdgeType, value: Any) -> Any:
        """Ports were checked where types could tell; what came through `any` is checked here."""
        if value is None and wanted.optional:
            return None
        if wanted.item is not None and isinstance(value, (list, tuple)):
            found = [self._ports(spec, wanted.item, part) for part in value]
            return tuple(found) if spec.is_tuple and wanted is spec.type else found
        if wanted.port is None or not isinstance(value, wanted.port):
            raise _wrong(spec, wanted, value)
        return value

    @staticmethod
    def _paths(spec: InputSpec, value: Any) -> Any:
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, (Path, Source)) for part in parts):
            what = "is a file: it is written in the graph or given to it, not computed"
            raise UserError(f"input {spec.name!r} {what}")
        return tuple(value) if spec.is_tuple else value


def _checked(spec: InputSpec, value: Any) -> Any:
    """A JSON value that another node computed, as strictly as one written in the graph."""
    from pydantic import ValidationError

    if spec.type.name == "any":
        return value
    if isinstance(value, Value):
        raise _wrong(spec, spec.type, value)
    try:
        if not isinstance(value, (list, tuple, dict)):
            return spec.adapter.validate_python(value, strict=True)
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):  # it holds ports, or numbers that JSON has no words for
            return spec.adapter.validate_python(value)
        return spec.adapter.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part!r}]" for part in first["loc"])
        message = first["msg"][0].lower() + first["msg"][1:]
        raise UserError(f"input {spec.name!r}{place}: {message}, got {str(first['input'])[:80]}") from None


def _wrong(spec: InputSpec, wanted: EdgeType, value: Any) -> UserError:
    got = value.port_name if isinstance(value, Port) else type_name(value)
    return UserError(f"input {spec.name!r} got the wrong type: {got}, wanted {wanted}")
