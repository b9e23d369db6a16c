"""Going on when environments cancel tasks that are not their own. Owns how such a cancellation is told from one that is meant.

`for task in asyncio.all_tasks(): task.cancel()` reaches everything that shares the loop: the worker's own tasks and the episodes of
others. Nobody of ours asked for it, so the work begins again; it must stand being cancelled at any wait.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

CANCELLED = "a task was cancelled from within: the environment cancels tasks that are not its own"
AGAIN_SECONDS = 0.5  # an environment that does it at every step must not make a storm of ours

log = logging.getLogger(__name__)


async def undisturbed(work: Callable[[], Awaitable[T]], ending: Callable[[], bool]) -> T:
    """What `work()` returns or raises. It is begun again when it is cancelled, unless `ending()`: then that is meant."""
    times = 0
    while True:
        try:
            if times:
                await asyncio.sleep(AGAIN_SECONDS)
            return await work()
        except asyncio.CancelledError:
            if ending():
                raise
            own_again()
            times += 1
            if times & (times - 1) == 0:  # the first, the second, the fourth: it may be at every step
                log.error("%s; the worker goes on (%d)", CANCELLED, times)


def own_again() -> bool:
    """Take back the cancellations that the environment has asked of the current task, those it left pending too; whether there were."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return False
    while task.cancelling():
        task.uncancel()
    return True
