"""Asks a job's learner how it is: GET /v1/status every few seconds.

Owns the newest answer and why there is none. Does not own what follows from it.
"""

import asyncio
import time
from collections.abc import Callable

import aiohttp
import msgspec

from asyncppo.report.measures import LearnerStatus
from asyncppo.wire import routes
from asyncppo.wire.client import bearer, read_answer

ANSWER_SECONDS = 5.0
SILENT_SECONDS = 30.0
LARGEST_ANSWER = 4 << 20  # a thousand rollouts take a few hundred kilobytes


class LearnerProbe:
    """One job's learner. `heard()` is called after every answer and after every failure.

    session: of `asyncppo.wire.client.open_session`, which inflates nothing: a learner's image is the job's author's.
    """

    def __init__(self, session: aiohttp.ClientSession, period: float, heard: Callable[[], None]) -> None:
        self._session = session
        self._period = period
        self._heard = heard
        self._task: asyncio.Task[None] | None = None
        self._base = ""
        self._token = ""
        self._answered_at = 0.0
        self.status: LearnerStatus | None = None
        self.error = ""

    @property
    def age(self) -> float | None:
        """Seconds since the newest answer; None before the first."""
        return time.monotonic() - self._answered_at if self._answered_at else None

    @property
    def current(self) -> LearnerStatus | None:
        """The newest answer; None once it is too old to go by. A learner busy with a step may miss a question or two."""
        age = self.age
        return self.status if age is not None and age < SILENT_SECONDS else None

    def aim(self, base: str, token: str) -> None:
        """Ask at `base` from now on; an empty one: stop asking, there is no learner."""
        if (base, token) == (self._base, self._token) and (self._task is not None or not base):
            return
        self.close()
        self._base, self._token = base, token
        self.error = "" if base else "its pod does not run"
        if not base:
            # a pod that went takes what it said with it
            self.status = None
            return
        self._task = asyncio.create_task(self._ask_for_ever(), name=f"probe {base}")

    def close(self) -> None:
        """No more questions."""
        if self._task is not None:
            self._task.cancel()
        self._task = None

    async def _ask_for_ever(self) -> None:
        while True:
            try:
                self.status = await self._ask()
                self._answered_at = time.monotonic()
                self.error = ""
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.error = f"{self._base} does not answer: {type(error).__name__} {error}".rstrip()
            except (msgspec.DecodeError, RecursionError) as error:
                self.error = f"{self._base} answers something else than a learner's status: {error}"
            self._heard()
            await asyncio.sleep(self._period)

    async def _ask(self) -> LearnerStatus:
        async with self._session.get(
            self._base + routes.STATUS,
            headers=bearer(self._token),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
        ) as response:
            response.raise_for_status()
            return msgspec.json.decode(await read_answer(response, LARGEST_ANSWER), type=LearnerStatus)
