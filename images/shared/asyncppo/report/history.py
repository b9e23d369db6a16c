"""The run's history as read back from metrics.jsonl.

Owns reading: torn lines, abandoned lineages, following a file that grows. Does not own writing it nor the sums over updates (the
learner) nor drawing (`picture.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from asyncppo.report.measures import UpdateMetrics


@dataclass
class History:
    """The updates of the newest lineage, oldest first. `torn` counts lines that could not be read.

    `follow` may be called again and again while the learner writes: it reads on where it stopped.
    """

    path: Path
    updates: list[UpdateMetrics] = field(default_factory=list)
    torn: int = 0
    _offset: int = 0

    def follow(self) -> list[UpdateMetrics]:
        """Read the whole lines that were added since; all updates so far."""
        try:
            with self.path.open("rb") as file:
                if self.path.stat().st_size < self._offset:  # written anew
                    self.updates, self.torn, self._offset = [], 0, 0
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return self.updates
        whole = content.rfind(b"\n") + 1
        self._offset += whole
        for line in content[:whole].splitlines():
            self._add(line)
        return self.updates

    def _add(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            update = msgspec.json.decode(line, type=UpdateMetrics)
        except msgspec.DecodeError:
            self.torn += 1
            return
        # A restored checkpoint goes on from an earlier update: what came after it belongs to an abandoned lineage.
        while self.updates and self.updates[-1].update >= update.update:
            self.updates.pop()
        self.updates.append(update)


def read_history(path: Path) -> list[UpdateMetrics]:
    """All updates in a metrics.jsonl; an empty list when there is none."""
    return History(path).follow()


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean of the last `width` values at each point (of fewer at the start)."""
    means, total = [], 0.0
    for at, value in enumerate(values):
        total += value
        if at >= width:
            total -= values[at - width]
        means.append(total / min(at + 1, width))
    return means
