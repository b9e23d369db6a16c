"""Kills what a dead runner left behind: `python -m asyncppo.local.warden`, started first, in a session of its own.

Owns the list of live process groups and the last resort. The runner tells it `+GROUP` and `-GROUP` on its standard input; when
that closes while groups are still listed (a runner that was SIGKILLed), it kills them whole, grandchildren included. Does not own
ordinary stopping (`supervisor.py`).
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def watch(lines: Iterable[str]) -> set[int]:
    """Read `+GROUP`/`-GROUP` lines until they end; the groups still listed then."""
    groups: set[int] = set()
    for line in lines:
        sign, group = line[0], int(line[1:])
        if sign == "+":
            groups.add(group)
        else:
            groups.discard(group)
    return groups


def main() -> None:
    """Watch standard input, then kill what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for group in watch(sys.stdin):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
