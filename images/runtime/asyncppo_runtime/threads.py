"""Threads for blocking calls: the program's own, and those that a loop lends to everybody else (`asyncio.to_thread`). Owns both pools.

They are apart, so that an environment whose calls hang cannot keep weights from being read. Their threads are daemons: one that hangs
does not keep the program from ending. Does not own the engine's thread nor the ledger's.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

OWN_THREADS = 8
MOST_HANGING = 1024

log = logging.getLogger(__name__)


class DaemonPool(ThreadPoolExecutor):
    """`most` threads that can be used, started as they are needed.

    A thread whose call nobody waits for any more (its future was cancelled while it ran) is not one of them: another takes its
    place, up to MOST_HANGING. When its call does end, it ends too. An executor by its interface; a ThreadPoolExecutor by name only,
    since a loop takes no other for its default.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(max_workers=most, thread_name_prefix=name)
        self._most = most
        self._name = name
        self._calls: deque[tuple[_Call, Callable[[], Any]]] = deque()
        self._there = threading.Condition()
        self._threads_alive = 0
        self._idle = 0
        self._hanging = 0
        self._closed = False

    @property
    def hanging(self) -> int:
        """Threads whose call nobody waits for."""
        return self._hanging

    def submit(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> "Future[T]":
        """See `concurrent.futures.Executor.submit`."""
        call = _Call(self)
        with self._there:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._calls.append((call, lambda: function(*arguments, **keywords)))
            self._staff()
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Does not wait for those that run, whatever `wait` says: they may hang."""
        with self._there:
            self._closed = True
            left, self._calls = (self._calls, deque()) if cancel_futures else ((), self._calls)
            self._there.notify_all()
        for call, _ in left:
            call.cancel()

    def _staff(self) -> None:
        """With the lock: a thread for the newest call, if one may be had."""
        if self._idle >= len(self._calls):
            self._there.notify()
        elif self._threads_alive - min(self._hanging, MOST_HANGING) < self._most:
            self._threads_alive += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads_alive}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._there:
                while not self._calls:
                    if self._closed:
                        self._threads_alive -= 1
                        return
                    self._idle += 1
                    self._there.wait()
                    self._idle -= 1
                call, function = self._calls.popleft()
            if call.set_running_or_notify_cancel():
                outcome: Any = None
                failure: BaseException | None = None
                try:
                    outcome = function()
                except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
                    failure = error
                replaced = self._ended(call)
                if failure is None:
                    call.set_result(outcome)
                else:
                    call.set_exception(failure)
                if replaced:
                    return
            del call, function

    def _ended(self, call: "_Call") -> bool:
        """A call is over: whether nobody waited for it, so that another thread has replaced this one."""
        with self._there:
            call.over = True
            if call.hangs:
                self._hanging -= 1
                self._threads_alive -= 1
            return call.hangs

    def gave_up(self, call: "_Call") -> None:
        """Nobody waits for a call that runs."""
        with self._there:
            if call.over or call.hangs:
                return
            call.hangs = True
            self._hanging += 1
            hanging = self._hanging
            if self._calls:
                self._staff()
        if hanging & (hanging - 1) == 0:
            log.warning(
                "%d thread(s) of %s hang in calls that nobody waits for any more%s",
                hanging,
                self._name,
                "" if hanging < MOST_HANGING else "; no more are replaced",
            )


class _Call(Future[Any]):
    """A future that tells its pool when it is cancelled while it runs. hangs, over: guarded by the pool's lock."""

    def __init__(self, pool: DaemonPool) -> None:
        super().__init__()
        self._pool = pool
        self.hangs = False
        self.over = False

    def cancel(self) -> bool:
        """See `Future.cancel`: false for a call that runs."""
        cancelled = super().cancel()
        if not cancelled and self.running():
            self._pool.gave_up(self)
        return cancelled


_own = DaemonPool(OWN_THREADS, "asyncppo")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Like `asyncio.to_thread`, in the program's own threads. What it calls must end by itself."""
    return await asyncio.get_running_loop().run_in_executor(_own, function, *arguments)
