"""One HTTP client for all calls between programs: msgpack in and out, the job's token, deadlines, typed answers.

Owns the transport. Does not retry on its own: a caller knows whether to ask again.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.faults import Kind, Moment, at_call
from asyncppo.wire.syncing import Refused

T = TypeVar("T")
CONTENT_TYPE = "application/msgpack"


class WireClient:
    """Calls peers by base URL. Use as an async context manager.

    resolver: looks host names up; None for aiohttp's own. Raises RefusedError for 4xx/5xx with a Refused body, UnreachableError for
    everything that is not an answer.
    """

    def __init__(self, token: str, resolver: AbstractResolver | None = None) -> None:
        self._token = token
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._duplicates: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"},
            connector=aiohttp.TCPConnector(limit=0, resolver=self._resolver),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The aiohttp session underneath, for streamed bodies."""
        if self._session is None:
            raise RuntimeError("WireClient is used outside its context")
        return self._session

    async def post(self, base: str, path: str, message: object, answer: type[T], timeout: float) -> T:
        """POST a struct, decode the answer as `answer`. `timeout` in seconds bounds the whole call."""
        body = msgspec.msgpack.encode(message)
        before = await at_call(path, Moment.BEFORE)
        if before is not None and before.kind is Kind.DROP:
            raise UnreachableError(f"POST {base + path}: dropped on purpose")
        if before is not None and before.kind is Kind.DUPLICATE:
            copy = asyncio.create_task(self._send_again(before.seconds, base + path, body, timeout))
            self._duplicates.add(copy)
            copy.add_done_callback(self._duplicates.discard)
        result = await self._call("POST", base + path, body, answer, timeout)
        after = await at_call(path, Moment.AFTER)
        if after is not None and after.kind is Kind.DROP:
            raise UnreachableError(f"POST {base + path}: its answer was lost on purpose")
        return result

    async def get(self, base: str, path: str, answer: type[T], timeout: float) -> T:
        """GET and decode the answer as `answer`."""
        return await self._call("GET", base + path, None, answer, timeout)

    async def _send_again(self, seconds: float, url: str, body: bytes, timeout: float) -> None:
        """A copy of a call that comes late; nobody waits for what it is answered."""
        await asyncio.sleep(seconds)
        with contextlib.suppress(RefusedError, UnreachableError):
            await self._call("POST", url, body, msgspec.Raw, timeout)

    async def _call(self, method: str, url: str, body: bytes | None, answer: type[T], timeout: float) -> T:
        try:
            async with self.session.request(
                method,
                url,
                data=body,
                headers={"Content-Type": CONTENT_TYPE} if body is not None else None,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                content = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{method} {url}: {type(error).__name__} {error}") from error
        try:
            if status >= 400:
                refused = msgspec.msgpack.decode(content, type=Refused)
                raise RefusedError(status, refused.reason, refused.message)
            return msgspec.msgpack.decode(content, type=answer)
        except msgspec.DecodeError as error:
            raise UnreachableError(f"{method} {url}: status {status}, an answer that is not ours: {error}") from error
