"""The strategies' exceptions.

OldLogprobsError
├── VersionUnavailableError   the weights of a version cannot be had (any more): oldLogits.onUnavailable decides what follows
├── HeldWeightsError          the weights that were loaded are not the version's (hash)
├── RingFullError             keeping one more version would drop one that live tokens need: publish later
├── UnscoredTokensError       tokens of the resident version are unscored at the moment its weights are about to change
└── QueueError                a worker or a segment the queue does not know, or that contradicts what it knows
"""


class OldLogprobsError(Exception):
    """Base of all errors of the strategies."""


class VersionUnavailableError(OldLogprobsError):
    """The weights of `version` cannot be had."""

    def __init__(self, version: int, message: str) -> None:
        super().__init__(message)
        self.version = version


class HeldWeightsError(OldLogprobsError):
    """What was loaded for a version does not hash to the version's train hash; nothing was scored with it."""


class RingFullError(OldLogprobsError):
    """The ring holds only versions that live tokens need; score or discard the oldest before the next publication."""


class UnscoredTokensError(OldLogprobsError):
    """The resident version still has unscored tokens; score or discard them before the optimizer step."""


class QueueError(OldLogprobsError):
    """A message that contradicts the scoring queue; the sender is wrong or late."""
