"""One role program as a child process: started leashed in a group of its own, its output in a log file, killed as a group.

Owns the process and its log. Does not own when it is started again (`supervisor.py`).
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncppo.printable import printable
from asyncppo.programs import MODULE

LAST_WORDS = 12


@dataclass(frozen=True)
class RoleProgram:
    """What to run: `name` is the role's name, `command` its argv, `environment` is added to the runner's own."""

    name: str
    command: Sequence[str]
    log_file: Path
    environment: Mapping[str, str]


class Warden:
    """The runner's end of `warden.py`."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the warden program."""
        self._process = await asyncio.create_subprocess_exec(
            *MODULE,
            "asyncppo.local.warden",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    async def tell(self, line: str) -> None:
        """Say `+GROUP` or `-GROUP`. A warden that was killed is not mourned: the leash is still there."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(f"{line}\n".encode())
                await self._process.stdin.drain()

    async def stop(self) -> None:
        """Let it go; it kills whatever is still listed."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.close()
                await self._process.stdin.wait_closed()
            await self._process.wait()
            self._process = None


class RoleProcess:
    """A running role program. Make one with `start`."""

    def __init__(self, program: RoleProgram, process: asyncio.subprocess.Process, warden: Warden) -> None:
        self.program = program
        self.pid = process.pid
        self.started = time.monotonic()
        self._process = process
        self._warden = warden

    @classmethod
    async def start(cls, program: RoleProgram, warden: Warden) -> "RoleProcess":
        """Start the program. Raises OSError when that is impossible."""
        program.log_file.parent.mkdir(parents=True, exist_ok=True)
        with program.log_file.open("ab") as log:
            log.write(f"{_start_mark()}\n".encode())
            log.flush()
            process = await asyncio.create_subprocess_exec(
                *MODULE,
                "asyncppo.local.leash",
                str(os.getpid()),
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **program.environment},
                start_new_session=True,
            )
        await warden.tell(f"+{process.pid}")
        return cls(program, process, warden)

    async def wait(self) -> int:
        """Wait for the end, then kill what is left of its group. Returns the exit status, negative for a signal."""
        status = await self._process.wait()
        self.kill()
        await self._warden.tell(f"-{self.pid}")
        return status

    def terminate(self) -> None:
        """Ask the program to stop (SIGTERM, to it alone: it tells its own children)."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def exit_in_words(status: int) -> str:
    """An exit status as a person says it."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def last_words(log_file: Path, lines: int = LAST_WORDS) -> list[str]:
    """The last non-empty lines that the newest start of a role wrote."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, log_file.stat().st_size - 65536))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    words = [printable(line.rstrip(), lines=False) for line in text.splitlines() if line.strip()]
    starts = [index for index, line in enumerate(words) if line.startswith(_MARK)]
    return words[starts[-1] + 1 if starts else 0 :][-lines:]


_MARK = "--- started "


def _start_mark() -> str:
    return f"{_MARK}{time.strftime('%Y-%m-%d %H:%M:%S')} ---"
