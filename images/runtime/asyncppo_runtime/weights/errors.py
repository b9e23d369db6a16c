"""Exceptions of the weights package.

WeightsError
├── WeightsRefusedError       the bytes are not the record's (size, hash, format): nothing was put in place
├── WeightsGoneError          no such version here, or no longer
├── WeightsStorageError       the local disk failed or is full
└── WeightsUnreachableError   the attempts are used up; what has arrived is kept for the next pull
"""


class WeightsError(Exception):
    """Base of all errors of this package."""


class WeightsRefusedError(WeightsError):
    """A weights file that is not what its record says. The version before it serves on."""


class WeightsGoneError(WeightsError):
    """The version asked for is not (or no longer) kept; ask the learner which one is current."""


class WeightsStorageError(WeightsError):
    """Writing or reading weights failed; the message says what to do. No file was put in place."""


class WeightsUnreachableError(WeightsError):
    """The sender did not answer, or not to the end, in any attempt. A later pull resumes where this one stopped."""
