"""Whether an exact scorer can be counted on, with hysteresis. Pure: no clock of its own.

Owns that judgement. Does not own what follows when it is negative (`oldLogits.onUnavailable`).
"""

from dataclasses import dataclass


@dataclass
class Availability:
    """after: seconds of silence until the scorer counts as lost. back: seconds it must answer without such a gap until it counts
    again, so that one that comes and goes does not switch the source of the old log-probs to and fro. All times on one clock.
    """

    after: float
    back: float
    heard_at: float
    lost: bool = False
    _answering_since: float | None = None

    def heard(self, now: float) -> None:
        """The scorer has given a sign of life."""
        if self.lost and (self._answering_since is None or now - self.heard_at > self.back):
            self._answering_since = now
        self.heard_at = max(self.heard_at, now)

    def look(self, now: float) -> bool:
        """Whether it can be counted on now."""
        silence = now - self.heard_at
        if not self.lost and silence > self.after:
            self.lost, self._answering_since = True, None
        elif self.lost and self._answering_since is not None:
            if silence > self.back:
                self._answering_since = None
            elif now - self._answering_since >= self.back:
                self.lost, self._answering_since = False, None
        return not self.lost
