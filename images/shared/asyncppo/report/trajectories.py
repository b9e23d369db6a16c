"""Trajectories as `asyncppo show` prints them: what the runtime's reader tells and the CLI renders (JSON, camelCase).

Owns these shapes. Does not own reading the ledger (`asyncppo_runtime.inspect`) nor the rendering (`trajectory_words.py`).
"""

from asyncppo.report.measures import Measure


class TrajectoryLine(Measure, frozen=True, kw_only=True):
    """One line of the listing. fate: InFlight, Waiting, Trained, Discarded. versions: oldest and newest of its sampled tokens.

    staleness: of its oldest token when it was trained on; None when it was not.
    """

    id: int
    group: int
    member: str
    fate: str
    reason: str = ""
    reward: float = 0.0
    end_reason: str = ""
    tokens: int = 0
    versions: tuple[int, int] | None = None
    staleness: int | None = None


class Listing(Measure, frozen=True, kw_only=True):
    """The newest trajectories, newest first, and how many the ledger has received in all."""

    job: str
    received: int
    trajectories: list[TrajectoryLine]


class TokenView(Measure, frozen=True, kw_only=True):
    """One token. role: model, or environment (the prompt included). segment: ordinal of its segment, -1 outside.

    behavior_logprob: the engine's at sampling. old_logprob: the train side's under the version that sampled it, None while
    unscored. mask: whether the loss uses it (a model token, scored, kept by the discrepancy control).
    """

    id: int
    text: str
    role: str
    segment: int = -1
    version: int | None = None
    behavior_logprob: float | None = None
    old_logprob: float | None = None
    mask: bool = False


class RunView(Measure, frozen=True, kw_only=True):
    """Tokens of one role in a row, as the tokenizer joins them to what came before: one after the other they are the whole text."""

    role: str
    text: str


class SegmentView(Measure, frozen=True, kw_only=True):
    """One segment. kind: how its old log-probs were made, "" while unscored."""

    index: int
    start: int
    end: int
    version: int
    weights_hash: str
    state: str
    reason: str = ""
    scorer_version: int = -1
    scorer_hash: str = ""
    kind: str = ""


class TrajectoryView(Measure, frozen=True, kw_only=True):
    """One trajectory. pruned: its body is no longer kept; `tokens` is then empty. text: "" where no tokenizer could be had."""

    line: TrajectoryLine
    job: str
    attempt: int
    turns: int = 0
    error: str = ""
    trained_version: int = -1
    text: str = ""
    runs: list[RunView] = []
    tokens: list[TokenView] = []
    segments: list[SegmentView] = []
    pruned: bool = False
