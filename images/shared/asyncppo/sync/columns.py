"""The columns of the protocol: which phases a strategy's sync goes through, in which order, and what its seal demands.

Owns that data and the way from a job's strategy to a column's name. Does not own what a phase does (`machine.py`).
"""

from enum import StrEnum

import msgspec

from asyncppo.api.correction import Scoring, Strategy


class Phase(StrEnum):
    """Where a coordinator is. IDLE: watching the learner; OVER: the job is finished. The others are named after their calls."""

    IDLE = "Idle"
    BEGIN = "Begin"
    PAUSE = "Pause"
    FLUSH = "Flush"
    SCORE = "Score"
    SEAL = "Seal"
    STEP = "Step"
    PUBLISH = "Publish"
    LOAD = "Load"
    FINISH = "Finish"
    RESUME = "Resume"
    OVER = "Over"


MEMBER_PHASES = frozenset({Phase.PAUSE, Phase.FLUSH, Phase.LOAD, Phase.RESUME})
"""Phases whose calls go to every member at once; those of the other phases go to the learner."""


class SealRule(StrEnum):
    """What must be true of a manifest's entries before the version can be sealed.

    SCORED: each is scored or discarded. RECORDED: each is in the ledger; it is scored beside. NONE: there is no manifest; what was
    sampled before the seal may still arrive after it.
    """

    SCORED = "Scored"
    RECORDED = "Recorded"
    NONE = "None"

    @property
    def flushes(self) -> bool:
        """Whether rollouts hand over their unscored segments before the seal, after which no further token is accepted."""
        return self is not SealRule.NONE


class Column(msgspec.Struct, frozen=True):
    """One column: `phases` in order, from Begin to Resume."""

    name: str
    rule: SealRule
    phases: tuple[Phase, ...]

    @property
    def flushes(self) -> bool:
        """Whether rollouts hand over their unscored segments before the seal."""
        return self.rule.flushes

    def after(self, phase: Phase) -> Phase:
        """The phase that follows; IDLE after the last."""
        index = self.phases.index(phase) + 1
        return self.phases[index] if index < len(self.phases) else Phase.IDLE


_STEP_FIRST = (Phase.BEGIN, Phase.STEP, Phase.PUBLISH, Phase.PAUSE, Phase.SEAL, Phase.LOAD, Phase.FINISH, Phase.RESUME)

BARRIER = Column(
    "Barrier",
    SealRule.SCORED,
    (
        Phase.BEGIN,
        Phase.PAUSE,
        Phase.FLUSH,
        Phase.SCORE,
        Phase.SEAL,
        Phase.STEP,
        Phase.PUBLISH,
        Phase.LOAD,
        Phase.FINISH,
        Phase.RESUME,
    ),
)
OVERLAPPED = Column(
    "Overlapped",
    SealRule.RECORDED,
    (
        Phase.BEGIN,
        Phase.STEP,
        Phase.PUBLISH,
        Phase.PAUSE,
        Phase.FLUSH,
        Phase.SEAL,
        Phase.LOAD,
        Phase.FINISH,
        Phase.RESUME,
    ),
)
SNAPSHOT = Column("Snapshot", SealRule.NONE, _STEP_FIRST)
DEDICATED = Column("Dedicated", SealRule.NONE, _STEP_FIRST)
INEXACT = Column("Inexact", SealRule.NONE, _STEP_FIRST)

COLUMNS = {column.name: column for column in (BARRIER, OVERLAPPED, SNAPSHOT, DEDICATED, INEXACT)}
"""Every column by its name, which is what `SyncView.column` says."""


def distinct() -> dict[str, list[str]]:
    """Name of each column that differs, and the names of those with the same phases and the same seal: the protocol is one."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for column in COLUMNS.values():
        groups.setdefault((column.rule, column.phases), []).append(column.name)
    return {names[0]: names[1:] for names in groups.values()}


def column_of(strategy: Strategy, scoring: Scoring = Scoring.BARRIER) -> Column:
    """The column of a job: Interruption has one per way of scoring, Snapshot and Dedicated one each, the inexact ones share one."""
    if strategy is Strategy.INTERRUPTION:
        return BARRIER if scoring is Scoring.BARRIER else OVERLAPPED
    if strategy is Strategy.SNAPSHOT:
        return SNAPSHOT
    if strategy is Strategy.DEDICATED:
        return DEDICATED
    return INEXACT
