"""The algorithm's exceptions.

AlgorithmError
├── BatchError                what a batch is made from is malformed
├── NotScoredError            a loss token has no old log-prob
├── VersionMismatchError      an exact mode was given an old log-prob of another version
├── UnsupportedModelError     the model's logits cannot be had the way the log-probs need them
└── CombinationError          settings that count one factor twice, or not at all
"""


class AlgorithmError(Exception):
    """Base of all errors of the algorithm."""


class BatchError(AlgorithmError):
    """What a batch is made from is malformed; the message names the trajectory."""


class NotScoredError(AlgorithmError):
    """A loss token has no (or a non-finite) log-prob where one is needed; score or discard its trajectory first."""


class VersionMismatchError(AlgorithmError):
    """An old log-prob in an exact mode does not come from the version that sampled the token; score it again or discard it."""


class UnsupportedModelError(AlgorithmError):
    """The model does not look like a transformers causal LM with an output embedding."""


class CombinationError(AlgorithmError):
    """Settings that count one factor twice, or contradict each other; the message says which field to change."""
