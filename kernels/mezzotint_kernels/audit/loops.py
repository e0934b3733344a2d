"""Machine code as a list of instructions, and its loops.

A loop is a natural loop: the instructions from which a branch back to a header can be reached without passing
the header, where the header is on every path to that branch. A jump from a cold block at the function's end into
the middle of a loop therefore does not count as one, which a search for backward branches would take it to be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Code", "Instruction", "find_loops", "innermost"]


@dataclass(frozen=True)
class Instruction:
    """opcode: with its modifiers, "LDG.E.128". target: the label of a branch. falls: the next one may follow."""

    opcode: str
    operands: str = ""
    target: str | None = None
    falls: bool = True


@dataclass
class Code:
    """One function: instructions, and the index of the one that each label stands before."""

    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


def find_loops(code: Code) -> list[list[int]]:
    """Each loop's instructions, as indices in order; in the order of the loops' headers."""
    blocks = _blocks(code)
    follows = _edges(code, blocks)
    dominators = _dominators(follows)
    loops: dict[int, set[int]] = {}
    for block, targets in enumerate(follows):
        for target in targets:
            if target in dominators.get(block, ()):
                loops.setdefault(target, set()).update(_body(follows, target, block))
    return [[i for block in sorted(body) for i in range(*blocks[block])] for _, body in sorted(loops.items())]


def innermost(code: Code, loops: list[list[int]], wanted: Callable[[Instruction], bool]) -> list[list[int]]:
    """Of the loops with a wanted instruction in them, those that hold no other such loop."""
    having = [set(loop) for loop in loops if any(wanted(code.instructions[i]) for i in loop)]
    return [sorted(loop) for loop in having if not any(other < loop for other in having)]


def _blocks(code: Code) -> list[tuple[int, int]]:
    """[start, end) of each basic block."""
    count = len(code.instructions)
    starts = {0} | {at for at in code.labels.values() if at < count}
    for i, one in enumerate(code.instructions[:-1]):
        if one.target is not None or not one.falls:
            starts.add(i + 1)
    ordered = sorted(starts) if count else []
    return list(zip(ordered, [*ordered[1:], count], strict=True))


def _edges(code: Code, blocks: list[tuple[int, int]]) -> list[list[int]]:
    number = {start: i for i, (start, _) in enumerate(blocks)}
    follows: list[list[int]] = []
    for i, (_, end) in enumerate(blocks):
        last = code.instructions[end - 1]
        targets = []
        if last.target is not None and code.labels.get(last.target) in number:
            targets.append(number[code.labels[last.target]])
        if last.falls and i + 1 < len(blocks):
            targets.append(i + 1)
        follows.append(targets)
    return follows


def _dominators(follows: list[list[int]]) -> dict[int, set[int]]:
    """For each block that the entry reaches, the blocks on every path to it, itself included."""
    before: dict[int, list[int]] = {}
    order, stack, seen = [], [0] if follows else [], {0}
    while stack:
        block = stack.pop()
        order.append(block)
        for target in follows[block]:
            before.setdefault(target, []).append(block)
            if target not in seen:
                seen.add(target)
                stack.append(target)
    dominators = {block: set(order) for block in order}
    if order:
        dominators[0] = {0}
    changed = True
    while changed:
        changed = False
        for block in sorted(order):
            if block == 0:
                continue
            new = set.intersection(*(dominators[b] for b in before[block])) | {block}
            if new != dominators[block]:
                dominators[block], changed = new, True
    return dominators


def _body(follows: list[list[int]], header: int, tail: int) -> set[int]:
    before: dict[int, list[int]] = {}
    for block, targets in enumerate(follows):
        for target in targets:
            before.setdefault(target, []).append(block)
    body, stack = {header, tail}, [tail] if tail != header else []
    while stack:
        for block in before.get(stack.pop(), ()):
            if block not in body:
                body.add(block)
                stack.append(block)
    return body
