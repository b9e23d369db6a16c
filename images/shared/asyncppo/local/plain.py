"""The live view where there is no terminal: one line every few seconds. Owns the line and its pace; draws a Snapshot, asks nobody."""

import contextlib
import time
from types import TracebackType
from typing import IO, Self

from asyncppo.local.snapshot import Snapshot
from asyncppo.report.remarks import discards, unlearnt
from asyncppo.report.wording import clock, percent

PACE = 5.0


class PlainView:
    """Writes lines. Use as a context manager, like LiveView."""

    def __init__(self, stream: IO[str], pace: float = PACE) -> None:
        self._stream = stream
        self._pace = pace
        self._next = 0.0
        self._doing = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, snapshot: Snapshot) -> None:
        """Write a line when it is time for one, or when the run has come to another phase."""
        now = time.monotonic()
        if now < self._next and snapshot.phase == self._doing:
            return
        self._next, self._doing = now + self._pace, snapshot.phase
        self.note(line(snapshot))

    def note(self, words: str) -> None:
        """Write a line at once. A reader that has gone does not end the training."""
        with contextlib.suppress(BrokenPipeError):
            print(words, file=self._stream, flush=True)


def line(snapshot: Snapshot) -> str:
    """One moment as one line."""
    head = f"[{clock(snapshot.elapsed)}]"
    status = snapshot.status
    if status is None:
        return f"{head} {snapshot.doing}"
    parts = [
        f"update {status.update}/{snapshot.updates}",
        f"version {status.version}",
        f"reward {status.last_reward:.3f}",
        f"staleness {status.staleness.mean:.2f} (max {status.staleness.max}, bound {snapshot.bound})",
        f"exact {percent(status.old_logits.exact_coverage)}",
        f"ledger {'balanced' if status.ledger.balanced else 'NOT BALANCED'}",
        f"discarded {discards(status.ledger)}",
    ]
    if nothing := unlearnt(status.learning):
        parts.append(nothing)
    if status.eta_seconds:
        parts.append(f"eta {clock(status.eta_seconds)}")
    return f"{head} {'  '.join(parts)}  {snapshot.doing}"
