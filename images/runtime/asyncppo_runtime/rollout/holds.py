"""How long the environment's code holds the event loop, and the watch that ends a hold that is too long. Owns that clock.

Episodes of a worker share one loop: while one environment computes or sleeps without `await`, nothing else of the worker runs, its
heartbeat included. Every such stretch is measured. One that passes the limit is interrupted by raising HoldError where the code is: a
thread sends the main thread SIGURG, which also ends a sleep or a read; code that computes without giving up the interpreter (a
regular expression that backtracks) would keep that thread from running, so a timer of CPU time ticks besides. Code that never looks
at signals cannot be ended from within; the programs that watch over the worker then end the worker.
"""

import logging
import signal
import threading
from collections.abc import Callable
from time import perf_counter
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LONG_SECONDS = 0.1  # a stretch that others notice
TELL_SECONDS = 30.0
TICK_SECONDS = 0.5
PLACES = 3

log = logging.getLogger(__name__)


class HoldError(BaseException):
    """Raised inside the environment's code by the watch. No Exception: code that catches those must not keep it."""


class Holds:
    """since: when the code that holds the loop now got it (`perf_counter`), 0.0 while none does. last: how long the last stretch was.
    seconds: all long stretches."""

    __slots__ = ("_told", "last", "seconds", "since")

    def __init__(self) -> None:
        self.since = 0.0
        self.last = 0.0
        self.seconds = 0.0
        self._told = -TELL_SECONDS

    def run(self, code: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `code`, which runs the environment's, returns or raises; HoldError where that held the loop for too long."""
        since = self.since = perf_counter()
        try:
            return code(*arguments, **named)
        finally:
            self.since = 0.0
            self.last = perf_counter() - since
            if self.last >= LONG_SECONDS:
                self.seconds += self.last

    def tell(self, who: str, held: float) -> None:
        """Log a long stretch by its name, one now and then."""
        now = perf_counter()
        if held >= LONG_SECONDS and now - self._told > TELL_SECONDS:
            self._told = now
            log.warning(
                "%s held the event loop for %.2f s: no other episode of this worker went on meanwhile; await, or use asyncio.to_thread",
                who,
                held,
            )


class HoldWatch:
    """Interrupts what holds the loop for longer than `seconds`. Start it in the main thread, which runs the loop."""

    def __init__(self, holds: Holds, seconds: float) -> None:
        self._holds = holds
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hold-watch", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        signal.signal(signal.SIGURG, self._look)
        signal.signal(signal.SIGVTALRM, self._look)
        signal.siginterrupt(signal.SIGVTALRM, False)  # it ticks for the whole process; no library's call shall notice
        signal.setitimer(signal.ITIMER_VIRTUAL, TICK_SECONDS, TICK_SECONDS)
        self._thread.start()

    def stop(self) -> None:
        """No more."""
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        self._ended.set()
        self._thread.join()
        for number in (signal.SIGVTALRM, signal.SIGURG):
            signal.signal(number, signal.SIG_IGN)

    def _overdue(self) -> float:
        since = self._holds.since
        held = perf_counter() - since if since else 0.0
        return held if held > self._seconds else 0.0

    def _watch(self) -> None:
        main = threading.main_thread().ident
        while not self._ended.wait(TICK_SECONDS):
            if main is not None and self._overdue():
                signal.pthread_kill(main, signal.SIGURG)

    def _look(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two instructions of whatever runs there: only the environment's code has `since` set, and
        `Holds.run` itself just before that code and just after it, where an error would leave `since` as it is."""
        held = self._overdue()
        if not held:
            return
        # one signal may come while another is looked at
        while frame is not None and frame.f_code.co_filename == __file__:
            if frame.f_code is Holds.run.__code__:
                return
            frame = frame.f_back
        raise HoldError(f"held the event loop for {held:.1f} s without a wait, at {_place(frame)}")


def _place(frame: FrameType | None) -> str:
    """The line that runs, and who called it: the innermost may be a library's."""
    calls: list[str] = []
    while frame is not None and len(calls) < PLACES:
        calls.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        frame = frame.f_back
    return ", called at ".join(calls) or "a place unknown"
