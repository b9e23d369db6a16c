"""Runs a program that dies with the one that started it: `python -m asyncppo.local.leash PARENT_PID PROGRAM ARGUMENT…`.

Owns the parent-death signal, asked of the kernel after the fork and kept over the exec (Linux; elsewhere only the warden is left).
Does not own what the program starts in turn: that is the warden's (`warden.py`).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the parent dies; exit at once when it already has."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit("the runner is gone")


def main() -> None:
    """Leash this process, then become the program."""
    parent, program, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[2:]
    die_with_parent(parent)
    os.execvp(program, arguments)


if __name__ == "__main__":
    main()
