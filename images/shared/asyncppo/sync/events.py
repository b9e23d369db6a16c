"""What goes into the coordinator's machine and what comes out: events and commands.

Owns these shapes. Does not own what follows from them (`machine.py`) nor how they are carried out (`coordinator.py`).

An event says which phase and epoch it belongs to, so that the machine can leave unheard what comes too late.
"""

import msgspec

from asyncppo.sync.columns import Phase
from asyncppo.wire.experience import Manifest
from asyncppo.wire.membership import Member
from asyncppo.wire.syncing import (
    Begin,
    Finish,
    Flush,
    Load,
    Loaded,
    Pause,
    Paused,
    Resume,
    Resumed,
    Seal,
    SyncCall,
    SyncView,
)


class Watch(msgspec.Struct, frozen=True, tag=True):
    """Ask the learner where the job is, and report Viewed. `wait`: nothing is to be done, so wait for news."""

    wait: bool


class ToLearner(msgspec.Struct, frozen=True, tag=True):
    """Call the learner's route of `phase`. The driver fills in a Finish's seconds."""

    phase: Phase
    epoch: int
    message: Begin | SyncCall | Seal | Finish


class ToMember(msgspec.Struct, frozen=True, tag=True):
    """Call a member's route of `phase`; all of a phase go out at once."""

    phase: Phase
    epoch: int
    member: Member
    message: Pause | Flush | Load | Resume


Command = Watch | ToLearner | ToMember


class Viewed(msgspec.Struct, frozen=True, tag=True):
    """The learner told where the job is. `stalled`: the open epoch of somebody else has not moved for the driver's patience."""

    view: SyncView
    stalled: bool = False


class LearnerAnswered(msgspec.Struct, frozen=True, tag=True):
    """The call of `phase` was answered."""

    phase: Phase
    epoch: int
    view: SyncView


class LearnerRefused(msgspec.Struct, frozen=True, tag=True):
    """The call of `phase` was refused."""

    phase: Phase
    epoch: int
    reason: str
    message: str = ""


class LearnerSilent(msgspec.Struct, frozen=True, tag=True):
    """The call of `phase` got no answer: it may or may not have been carried out."""

    phase: Phase
    epoch: int


class MemberAnswered(msgspec.Struct, frozen=True, tag=True):
    """A member did what `phase` asks."""

    phase: Phase
    epoch: int
    name: str
    answer: Paused | Manifest | Loaded | Resumed


class MemberRefused(msgspec.Struct, frozen=True, tag=True):
    """A member refused."""

    phase: Phase
    epoch: int
    name: str
    reason: str
    message: str = ""


class MemberSilent(msgspec.Struct, frozen=True, tag=True):
    """A member gave no answer within the phase's deadline."""

    phase: Phase
    epoch: int
    name: str


Event = Viewed | LearnerAnswered | LearnerRefused | LearnerSilent | MemberAnswered | MemberRefused | MemberSilent
