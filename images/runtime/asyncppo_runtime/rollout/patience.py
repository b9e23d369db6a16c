"""Awaiting an environment's coroutine for a limited time, whatever it does with that time. Owns the clock of one call.

Most environment steps answer at once. A timer per step would be the most expensive part of them, so the coroutine is begun first and
a timer is set only when it really waits. It runs in the episode's own task from first to last: a timeout, a task group or a cancel
scope that it enters before a wait is left in the same task after it.

A coroutine that is told to stop (its time is up, or its episode was dropped) has GRACE_SECONDS to clean up. Then it is left where
it is, closed, and its episode's task goes on without it: it may catch cancellations as often as it likes.
"""

import asyncio
import logging
from collections.abc import Coroutine, Generator
from functools import partial
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

from asyncppo_runtime.rollout.holds import LONG_SECONDS, HoldError, Holds

T = TypeVar("T")

GRACE_SECONDS = 5.0

log = logging.getLogger(__name__)


class LateError(Exception):
    """The time was up; what was awaited has been cancelled."""


class Caller(Protocol):
    """Whose call it is. dropped: nobody wants the answer any more; the cancellation that comes is meant."""

    dropped: bool


async def within(seconds: float, coroutine: Coroutine[Any, Any, T], holds: Holds, caller: Caller, who: str = "") -> T:
    """The coroutine's result. Raises LateError when it takes longer than `seconds`, waiting or not; what others held the loop is not
    counted. Whatever it raises itself, its own TimeoutError or CancelledError too, stays what it is.

    who: names it in the log when it holds the loop.
    """
    try:
        waits_for = holds.run(coroutine.send, None)
    except StopIteration as done:
        result: T = done.value
        held = holds.last
        if held > seconds:
            raise LateError(f"held the event loop for {held:.1f} s without a wait; {seconds:g} s are allowed") from None
        holds.tell(who, held)
        return result
    except HoldError as error:
        _close(coroutine, holds)
        raise LateError(str(error)) from None
    held = holds.last
    holds.tell(who, held)
    return await _Waiting(seconds, coroutine, waits_for, holds, caller, who, held)


class _Waiting(Generic[T]):
    """Awaits a coroutine that has already run to its first wait. held: how long that took."""

    def __init__(
        self,
        seconds: float,
        coroutine: Coroutine[Any, Any, T],
        waits_for: Any,
        holds: Holds,
        caller: Caller,
        who: str,
        held: float,
    ) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("within() is awaited outside a task")
        self._task = task
        self._loop = task.get_loop()
        self._seconds = seconds
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._holds = holds
        self._caller = caller
        self._who = who
        self._began = perf_counter() - held
        self._long_before = holds.seconds  # long stretches of everybody, until here
        self._long_own = 0.0  # of this coroutine, since
        self._held = held
        self._late = False  # its time is up
        self._told = False  # it has been told to stop
        self._left = False  # it did not
        self._cancels = 0
        self._timer = self._loop.call_later(max(0.0, seconds - held), self._expire)

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            result = yield from self._driven()
        except HoldError as error:
            self._close()
            raise LateError(str(error)) from None
        except BaseException as error:
            if self._late:
                raise LateError(self._lateness()) from error
            raise
        finally:
            self._timer.cancel()
            for _ in range(self._cancels):
                self._task.uncancel()
        if self._late or self._spent() > self._seconds:
            raise LateError(self._lateness())
        if self._told:
            raise asyncio.CancelledError
        return result

    def _driven(self) -> Generator[Any, Any, T]:
        while True:
            error = None
            try:
                yield from self._wait()
            except BaseException as thrown:
                error = thrown
                if self._left:
                    self._close()
                    raise
                self._heed(thrown)
            before = self._holds.seconds
            try:
                self._waits_for = (
                    self._holds.run(self._coroutine.send, None)
                    if error is None
                    else self._holds.run(self._coroutine.throw, error)
                )
            except StopIteration as done:
                result: T = done.value
                return result
            finally:
                self._held += self._holds.last
                self._long_own += self._holds.seconds - before
                self._holds.tell(self._who, self._holds.last)

    def _wait(self) -> Generator[Any, Any, None]:
        """Until what the coroutine waits for is done. Raises what the task is thrown meanwhile.

        For a plain future the task waits itself. Anything else, another task for one, may ignore that it is cancelled, and nothing
        else wakes a task: then it waits for a future of ours.
        """
        future = self._waits_for
        if type(future) is asyncio.Future or not asyncio.isfuture(future):
            yield future
            return
        future._asyncio_future_blocking = False  # as a task does when it is handed one to wait for
        if future is self._task:
            raise RuntimeError("a task cannot wait for itself: it would never end")
        if future.get_loop() is not self._loop:
            raise RuntimeError(f"a {type(future).__name__} of another event loop cannot be waited for in this one")
        while not future.done():
            own = self._loop.create_future()
            wake = partial(_wake, own)
            future.add_done_callback(wake)
            try:
                yield from own
            except asyncio.CancelledError as error:
                if self._left or not future.cancel():
                    raise
                self._heed(error)
            finally:
                future.remove_done_callback(wake)

    def _heed(self, error: BaseException) -> None:
        """A cancellation because the episode was dropped starts the time of grace; one of the coroutine's own making does not."""
        if self._caller.dropped and not self._told and isinstance(error, asyncio.CancelledError):
            self._told = True
            self._timer.cancel()
            self._timer = self._loop.call_later(GRACE_SECONDS, self._give_up)

    def _expire(self) -> None:
        left = self._seconds - self._spent()
        if left > 0:
            self._timer = self._loop.call_later(left, self._expire)
            return
        self._late = self._told = True
        self._cancel()
        self._timer = self._loop.call_later(GRACE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._left = True
        self._cancel()

    def _cancel(self) -> None:
        self._cancels += 1
        self._task.cancel()

    def _spent(self) -> float:
        """Seconds of this call, without those in which others held the loop."""
        return perf_counter() - self._began - (self._holds.seconds - self._long_before - self._long_own)

    def _lateness(self) -> str:
        text = f"no answer within {self._seconds:g} s"
        if self._held >= LONG_SECONDS:
            text += f", {self._held:.1f} s of which it held the event loop"
        if self._left:
            text += f", and it went on for {GRACE_SECONDS:g} s after it was cancelled"
        return text

    def _close(self) -> None:
        _close(self._coroutine, self._holds)


def _wake(own: "asyncio.Future[None]", _: object) -> None:
    if not own.done():
        own.set_result(None)


def _close(coroutine: Coroutine[Any, Any, Any], holds: Holds) -> None:
    """Leave a coroutine where it is. One that ignores this too stays suspended for ever, and holds nothing but its memory."""
    try:
        holds.run(coroutine.close)
    except BaseException as error:  # noqa: BLE001 - it is left behind, whatever it says to that
        log.debug("a coroutine did not let itself be closed: %s", type(error).__name__)
