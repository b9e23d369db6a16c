"""A coordinator's machine driven against a learner that answers well: what the tests of the machine share."""

from msgspec.structs import replace
from tests.unit.sync.builders import ME, answer_to, coordinator, view

from asyncppo.sync.columns import Phase
from asyncppo.sync.events import (
    Command,
    Event,
    LearnerAnswered,
    MemberAnswered,
    MemberSilent,
    ToLearner,
    ToMember,
    Viewed,
    Watch,
)
from asyncppo.sync.machine import State, start, transition


class Learner:
    """Answers as a learner does, of one sync."""

    def __init__(self, column: str = "Barrier", **seen: object) -> None:
        self.view = view(column, **seen)  # type: ignore[arg-type]

    def carry_out(self, command: ToLearner) -> Event:
        name = command.phase
        if name is Phase.BEGIN:
            self.view = replace(self.view, epoch=command.epoch, owner=ME, open=True)
        elif name is Phase.SEAL:
            self.view = replace(self.view, sealed=True)
        elif name is Phase.PUBLISH:
            self.view = replace(self.view, stepped=True, record=view(stepped=True).record)
        elif name is Phase.FINISH:
            version = 1 if self.view.sealed else 0
            self.view = replace(self.view, open=False, sealed=False, stepped=False, wanted=False, version=version)
        return LearnerAnswered(command.phase, command.epoch, self.view)


def good(command: ToMember) -> Event:
    return MemberAnswered(command.phase, command.epoch, command.member.name, answer_to(command.message))


def silent(command: ToMember) -> Event:
    return MemberSilent(command.phase, command.epoch, command.member.name)


class Course:
    """A machine and what it said, driven until a phase or the end."""

    def __init__(self, learner: Learner, state: State | None = None) -> None:
        self.learner = learner
        self.state, self.due = start(state or coordinator())
        self.said: list[ToLearner | ToMember] = []

    def tell(self, event: Event) -> tuple[Command, ...]:
        self.state, commands = transition(self.state, event)
        if any(not isinstance(command, Watch) for command in commands):
            self.due = commands
        return commands

    def until(self, phase: Phase) -> tuple[Command, ...]:
        """Answer everything well until `phase` is entered; its commands."""
        for _ in range(40):
            if self.state.phase is phase and self.due:
                return self.due
            due, self.due = self.due or (Watch(wait=False),), ()
            for command in due:
                self.answer(command)
        raise AssertionError(f"{phase} was never entered; at {self.state.phase}")

    def to_the_end(self) -> None:
        while self.state.phase is not Phase.IDLE or self.learner.view.open or self.learner.view.wanted:
            due, self.due = self.due or (Watch(wait=False),), ()
            for command in due:
                self.answer(command)

    def answer(self, command: Command) -> None:
        if isinstance(command, Watch):
            self.tell(Viewed(self.learner.view))
            return
        self.said.append(command)
        self.tell(self.learner.carry_out(command) if isinstance(command, ToLearner) else good(command))

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(command.phase.value for command in self.said))

    def message(self, phase: Phase) -> object:
        return next(command.message for command in reversed(self.said) if command.phase is phase)


def at(phase: Phase, column: str = "Barrier", **seen: object) -> Course:
    course = Course(Learner(column, **seen))
    course.until(phase)
    return course
