"""A thread of its own for what blocks: the ledger's fsyncs, the trainer's forwards. Owns that only one call runs at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, Generic, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


class OwnThread(Generic[T]):
    """Holds a value that only its thread touches: `await owner(Type.method, *args)` runs the method there.

    Calls run in the order they were made. A cancelled caller does not stop a call that has begun.
    """

    def __init__(self, name: str, make: Callable[[], T]) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._value = self._executor.submit(make).result()

    async def __call__(self, method: Callable[Concatenate[T, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `method(value, *args, **kwargs)` on the thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: method(self._value, *args, **kwargs))

    def close(self, finish: Callable[[T], None] | None = None) -> None:
        """Run `finish` on the thread, then end it."""
        if finish is not None:
            self._executor.submit(finish, self._value).result()
        self._executor.shutdown(wait=True)
