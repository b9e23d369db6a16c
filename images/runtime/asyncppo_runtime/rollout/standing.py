"""Where this worker stands in the protocol: the one place that holds the current guard. Owns the variable, not its rules."""

from asyncppo.sync.member import MemberGuard


class Standing:
    """guard: a value (`asyncppo.sync.member`); the membership replaces it, everybody else only looks."""

    def __init__(self, guard: MemberGuard) -> None:
        self.guard = guard
