"""Awaiting somebody else's coroutine for a limited time, at no cost when it does not wait at all. Owns that one function.

Most environment steps answer at once. A timer per step would be the most expensive part of them, so the coroutine is begun first and
a timer is set only when it really waits.
"""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class LateError(Exception):
    """The time was up; what was awaited has been cancelled."""


async def within(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Raises LateError when it takes longer than `seconds`; its own TimeoutError stays what it is."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            late: T = await _Begun(coroutine, waits_for)
            return late
    except TimeoutError as error:
        if limit.expired():
            raise LateError(f"no answer within {seconds:g} s") from error
        raise


class _Begun:
    """Awaits a coroutine that has already run to its first wait."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._waits_for
        while True:
            try:
                try:
                    sent = yield waits_for
                except BaseException as error:  # noqa: BLE001 - a cancellation or an exit is the coroutine's to see first
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(sent)
            except StopIteration as done:
                return done.value
