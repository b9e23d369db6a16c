"""The learner's exceptions.

LearnerError
├── GuardError        a publication was refused: NaN, a canary failing everywhere, a discrepancy jump; the job fails, v serves on
├── CheckpointError   a checkpoint is damaged or does not match the manifest
├── OldLogitsError    an exact old log-prob cannot be had and onUnavailable is Fail
└── EpisodesError     environment.failAfter trajectories in a row were worth nothing
"""


class LearnerError(Exception):
    """Base: the job cannot go on; the message is its root cause."""


class GuardError(LearnerError):
    """Something that must not be published was about to be."""


class CheckpointError(LearnerError):
    """A checkpoint cannot be restored; the message names it and says what to do."""


class OldLogitsError(LearnerError):
    """Tokens without an exact old log-prob, and the manifest says to fail."""


class EpisodesError(LearnerError):
    """Trajectories are worth nothing, one after the other; the message has the commonest reason and an example."""
