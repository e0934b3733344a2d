"""What a graph's links add up to: cycles, named node by node, and nodes that lead to no output."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mezzotint.findings import Findings
    from mezzotint.graph import GraphNode

__all__ = ["check_cycles", "check_unused"]

_SHOWN = 12


def check_cycles(nodes: Mapping[str, GraphNode], findings: Findings) -> None:
    """Report each knot of cycles by its shortest one through the node that stands first in the file."""
    users: dict[str, list[str]] = {name: [] for name in nodes}
    waiting = dict.fromkeys(nodes, 0)
    for node in nodes.values():
        for need in node.needs:
            if need in users:
                users[need].append(node.name)
                waiting[node.name] += 1
    ready = [name for name, count in waiting.items() if not count]
    while ready:  # Kahn's algorithm: what remains lies on cycles, or behind one
        name = ready.pop()
        del waiting[name]
        for user in users[name]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    if waiting:
        _name_cycles(waiting, users, findings)


def _name_cycles(stuck: Iterable[str], users: Mapping[str, list[str]], findings: Findings) -> None:
    import networkx as nx

    order = {name: i for i, name in enumerate(users)}
    network = nx.DiGraph([(n, u) for n in stuck for u in users[n]])
    knots = [k for k in nx.strongly_connected_components(network) if len(k) > 1 or network.has_edge(*k, *k)]
    for knot, start in sorted(((k, min(k, key=order.__getitem__)) for k in knots), key=lambda f: order[f[1]]):
        loop = _shortest_loop(start, knot, users)
        shown = loop if len(loop) <= _SHOWN else [*loop[: _SHOWN // 2], "…", *loop[1 - _SHOWN // 2 :]]
        findings.say(f"/nodes/{start}", f"cycle: {' -> '.join([*shown, start])}", "cycle")


def _shortest_loop(start: str, knot: set[str], users: Mapping[str, list[str]]) -> list[str]:
    """Breadth first from `start` until it is met again."""
    came: dict[str, str] = {}
    waiting = deque([start])
    while start not in came:
        name = waiting.popleft()
        for user in users[name]:
            if user in knot and user not in came:
                came[user] = name
                waiting.append(user)
    loop = [came[start]]
    while loop[-1] != start:
        loop.append(came[loop[-1]])
    return loop[::-1]


def check_unused(nodes: Mapping[str, GraphNode], needed: Iterable[str], findings: Findings) -> None:
    """Warn of nodes that lead to none of the nodes `needed`."""
    reached: set[str] = set()
    waiting = list(needed)
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in reached:
            reached.add(name)
            waiting += nodes[name].needs
    for name in nodes:
        if name not in reached:
            text = f"node {name!r} leads to no output, so it will not run"
            findings.say(f"/nodes/{name}", text, "unused_node", severity="warning")
