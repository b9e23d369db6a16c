"""Breadth-first search of every reachable world, the invariants in each, and whether there is always a way forward.

Owns the search and the traces. Does not own the worlds (`world.py`, `moves.py`).
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator
from time import perf_counter

import msgspec

from asyncppo.sync.exploration.world import World, at_rest, broken, done

WAY_FORWARD = "way-forward"
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Violation(msgspec.Struct, frozen=True):
    """A broken invariant and the shortest way to it, one line per move."""

    invariant: str
    what: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number:2}. {line}" for number, line in enumerate(self.trace, 1))
        return f"{self.invariant}: {self.what}\n{steps}"


class Explored(msgspec.Struct, frozen=True):
    """What a search found. moves: edges of the graph. ends: worlds in which the sync is over."""

    states: int
    moves: int
    ends: int
    seconds: float
    violation: Violation | None = None


class _Graph:
    """Worlds by number; for each the move it was first reached by, and all its predecessors."""

    def __init__(self) -> None:
        self._number: dict[bytes, int] = {}
        self.parent = array("i")
        self.label: list[str] = []
        self._words: dict[str, str] = {}
        self.source = array("i")
        self.target = array("i")

    def add(self, world: World, parent: int, label: str) -> tuple[int, bool]:
        """(its number, whether it is new)."""
        key = hashlib.blake2b(_encode(world), digest_size=16).digest()
        number = self._number.setdefault(key, len(self.label))
        new = number == len(self.label)
        if new:
            self.parent.append(parent)
            self.label.append(self._words.setdefault(label, label))
        if parent >= 0:
            self.source.append(parent)
            self.target.append(number)
        return number, new

    def trace(self, number: int) -> tuple[str, ...]:
        lines: list[str] = []
        while self.parent[number] >= 0:
            lines.append(self.label[number])
            number = self.parent[number]
        return tuple(reversed(lines))

    def stuck(self, ends: list[int]) -> int | None:
        """The first world from which no end can be reached."""
        before: list[list[int]] = [[] for _ in self.label]
        for source, target in zip(self.source, self.target, strict=True):
            before[target].append(source)
        reached = bytearray(len(self.label))
        todo = list(ends)
        for number in todo:
            reached[number] = 1
        while todo:
            for number in before[todo.pop()]:
                if not reached[number]:
                    reached[number] = 1
                    todo.append(number)
        return next((number for number, seen in enumerate(reached) if not seen), None)


def explore(first: World, moves: Callable[[World], Iterator[tuple[str, World]]], limit: int = 5_000_000) -> Explored:
    """Search everything that can follow from `first`. Stops at the first broken invariant, which is one with a shortest trace.

    Raises RuntimeError when there are more than `limit` worlds: give a smaller budget.
    """
    began = perf_counter()
    graph = _Graph()
    ends: list[int] = []
    graph.add(first, -1, "")
    layer = [(0, first)]

    def found(violation: Violation | None) -> Explored:
        seconds = perf_counter() - began
        return Explored(len(graph.label), len(graph.source), len(ends), seconds, violation)

    while layer:
        following: list[tuple[int, World]] = []
        for number, world in layer:
            for invariant, what in broken(world):
                return found(Violation(invariant, what, graph.trace(number)))
            if done(world):
                ends.append(number)
                if at_rest(world):
                    continue
            for label, after in moves(world):
                added, new = graph.add(after, number, label)
                if new:
                    following.append((added, after))
        if len(graph.label) > limit:
            raise RuntimeError(f"more than {limit} worlds; explore with fewer faults or samples")
        layer = following
    stuck = graph.stuck(ends)
    if stuck is None:
        return found(None)
    what = "from here on the sync can no longer be finished with every token ended"
    return found(Violation(WAY_FORWARD, what, graph.trace(stuck)))
