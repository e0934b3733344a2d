"""Content keys of inputs that name what plugins register."""

from __future__ import annotations

from typing import Annotated

from mezzotint import Context, Registered, Runtime, load, node
from mezzotint.plugins import load_registry
from mezzotint.store import MemoryStore

SAMPLER = '''
from mezzotint import hookimpl

def fast(advance, levels, state):
    """A sampler that is never run here: {remark}."""
    yield state

@hookimpl
def register_samplers(register):
    register("fast", fast)
'''

DOC = {
    "format": 1,
    "nodes": {"n": {"use": "acme.sampled@1", "inputs": {"sampler": "fast"}}, "o": {"use": "acme.plain@1"}},
    "outputs": {"n": {"ref": "n"}, "o": {"ref": "o"}},
}


@node("acme.sampled")
def sampled(ctx: Context, *, sampler: Annotated[str, Registered("samplers")] = "slow") -> str:
    """Name a sampler.

    sampler: which.
    """
    return sampler


@node("acme.plain")
def plain(*, sampler: str = "fast") -> str:
    """Name nothing that is registered.

    sampler: a word.
    """
    return sampler


class Acme:
    @staticmethod
    def register_nodes(register):
        register(sampled)
        register(plain)


def keys(tmp_path, remark):
    from mezzotint import hookimpl

    path = tmp_path / "fast_sampler.py"
    path.write_text(SAMPLER.format(remark=remark))
    acme = Acme()
    acme.register_nodes = hookimpl(Acme.register_nodes)
    registry = load_registry(namespaces=(), installed=False, files=[path], extra=[acme])
    plan = load(DOC, runtime=Runtime(registry, MemoryStore())).plan()
    return {step.name: step.key for step in plan.steps.values()}


def test_a_changed_sampler_changes_the_keys_of_the_nodes_that_name_it_and_no_others(tmp_path):
    before, same, after = keys(tmp_path, "one"), keys(tmp_path, "one"), keys(tmp_path, "two")
    assert before == same
    assert before["n"] != after["n"]
    assert before["o"] == after["o"]
