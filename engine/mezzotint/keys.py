"""Content keys: what a step's result depends on, as one digest. Equal keys mean equal results."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

from mezzotint.literals import FileRef
from mezzotint.plan import StepOutput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mezzotint.nodes import NodeSpec
    from mezzotint.registry import Registry

__all__ = ["StepKeys"]


class StepKeys:
    """Makes keys. profile: what the numbers depend on besides the graph: device kind, dtype, threads, torch."""

    def __init__(self, registry: Registry, profile: str) -> None:
        self.registry = registry
        self.profile = profile
        self._salts: dict[str, str] = {}
        self._marks = 0
        self._encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=self._part).encode

    def key(self, spec: NodeSpec, inputs: Mapping[str, Any]) -> str:
        """sha256 over everything that a node's result depends on. Its name is not among it."""
        salt = self._salts.get(spec.id)
        if salt is None:
            salt = self._salts[spec.id] = self.registry.provenance(spec.id).digest or ""
        parts = [spec.use, inputs, self.profile, salt]
        for name, wanted in spec.inputs.items():
            if wanted.registered is not None:  # what it names is a part of the node, too
                parts.append(self.registry.digest_of(wanted.registered.table, str(inputs.get(name))))
        if not spec.cacheable:
            parts.append(uuid.uuid4().hex)
        self._marks = 0
        text = self._encode(parts)
        if text.count('"\\u0000') != self._marks:  # a literal looks like what only links and files may look like
            parts[1] = _unmistakable(inputs)
            text = self._encode(parts)
        return hashlib.sha256(text.encode()).hexdigest()

    def _part(self, value: Any) -> Any:
        self._marks += 1
        if isinstance(value, StepOutput):
            return {"\0step": value.key, "port": value.port}
        if isinstance(value, FileRef):
            if value.kind == "file":
                return {"\0file": value.digest}
            return {"\0source": value.digest, "uri": value.text}
        return {"\0other": str(value)}


def _unmistakable(tree: Any) -> Any:
    """A tree in which every literal object is marked as one."""
    if isinstance(tree, list):
        return [_unmistakable(part) for part in tree]
    if isinstance(tree, dict):
        return {"\0object": [[key, _unmistakable(part)] for key, part in sorted(tree.items())]}
    return tree
