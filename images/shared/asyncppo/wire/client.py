"""One HTTP client for all calls between programs: msgpack in and out, the caller's token, deadlines, typed answers.

Owns the transport and what it never does: follow a redirect, inflate an answer, read more of one than its limit. Does not retry on its
own: a caller knows whether to ask again.
"""

import asyncio
import contextlib
from collections.abc import Mapping
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
ANSWER_LIMIT = 8 << 20
"""Bytes of an answer: far more than the members and manifests of a thousand rollouts, far less than an operator's memory."""
CHUNK = 1 << 16


class AnswerError(aiohttp.ClientError):
    """An answer of a kind that is never taken: a redirect, a compressed one, one that is too long."""


def open_session(
    headers: Mapping[str, str] | None = None, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """A session that asks for plain bytes and inflates none. `headers` go with every call; `resolver` looks host names up."""
    return aiohttp.ClientSession(
        headers={"Accept-Encoding": "identity", **(headers or {})},
        connector=aiohttp.TCPConnector(limit=0, resolver=resolver),
        auto_decompress=False,
    )


def refuse_detours(response: aiohttp.ClientResponse) -> None:
    """AnswerError for a redirect (call with allow_redirects=False) and for a body in another form than its own bytes."""
    if 300 <= response.status < 400:
        where = response.headers.get("Location", "nowhere")[:200]
        raise AnswerError(f"status {response.status}: it redirects to {where!r}, which is not followed")
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise AnswerError(f"its answer is compressed ({coding[:40]!r}), which was not asked for and is not inflated")


async def read_answer(response: aiohttp.ClientResponse, limit: int = ANSWER_LIMIT) -> bytes:
    """The whole body. AnswerError when it is longer than `limit` bytes, and for what `refuse_detours` refuses."""
    refuse_detours(response)
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > limit:
            raise AnswerError(f"its answer is longer than {limit} bytes")
    return bytes(body)


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
        self._session = open_session(bearer(self._token), self._resolver)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def token(self) -> str:
        """What this client shows."""
        return self._token

    @property
    def session(self) -> aiohttp.ClientSession:
        """The aiohttp session underneath, for streamed bodies: whoever reads one calls `refuse_detours` first."""
        if self._session is None:
            raise RuntimeError("WireClient is used outside its context")
        return self._session

    async def post(
        self,
        base: str,
        path: str,
        message: object,
        answer: type[T],
        timeout: float,
        *,
        token: str | None = None,
        limit: int = ANSWER_LIMIT,
    ) -> T:
        """POST a struct, decode the answer as `answer`. `timeout` in seconds bounds the whole call, `limit` the answer's bytes.
        token: of this call; None: the client's own."""
        body = msgspec.msgpack.encode(message)
        before = await at_call(path, Moment.BEFORE)
        if before is not None and before.kind is Kind.DROP:
            raise UnreachableError(f"POST {base + path}: dropped on purpose")
        if before is not None and before.kind is Kind.DUPLICATE:
            copy = asyncio.create_task(self._send_again(before.seconds, base + path, body, timeout, token))
            self._duplicates.add(copy)
            copy.add_done_callback(self._duplicates.discard)
        result = await self._call("POST", base + path, body, answer, timeout, token, limit)
        after = await at_call(path, Moment.AFTER)
        if after is not None and after.kind is Kind.DROP:
            raise UnreachableError(f"POST {base + path}: its answer was lost on purpose")
        return result

    async def get(self, base: str, path: str, answer: type[T], timeout: float) -> T:
        """GET and decode the answer as `answer`."""
        return await self._call("GET", base + path, None, answer, timeout, None, ANSWER_LIMIT)

    async def fetch(self, method: str, url: str, timeout: float, limit: int = ANSWER_LIMIT) -> tuple[int, bytes]:
        """Status and body of a call without one. UnreachableError when there is no whole answer."""
        return await self._exchange(method, url, None, timeout, None, limit)

    async def _send_again(self, seconds: float, url: str, body: bytes, timeout: float, token: str | None) -> None:
        """A copy of a call that comes late; nobody waits for what it is answered."""
        await asyncio.sleep(seconds)
        with contextlib.suppress(RefusedError, UnreachableError):
            await self._call("POST", url, body, msgspec.Raw, timeout, token, ANSWER_LIMIT)

    async def _call(
        self, method: str, url: str, body: bytes | None, answer: type[T], timeout: float, token: str | None, limit: int
    ) -> T:
        status, content = await self._exchange(method, url, body, timeout, token, limit)
        try:
            if status >= 400:
                refused = msgspec.msgpack.decode(content, type=Refused)
                raise RefusedError(status, refused.reason, refused.message)
            return msgspec.msgpack.decode(content, type=answer)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UnreachableError(f"{method} {url}: status {status}, an answer that is not ours: {error}") from error

    async def _exchange(
        self, method: str, url: str, body: bytes | None, timeout: float, token: str | None, limit: int
    ) -> tuple[int, bytes]:
        headers = {} if token is None else bearer(token)
        if body is not None:
            headers["Content-Type"] = CONTENT_TYPE
        try:
            async with self.session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                return response.status, await read_answer(response, limit)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{method} {url}: {type(error).__name__} {error}") from error
        except (ValueError, AssertionError) as error:
            # what the library says of a url that is none; it is a peer's, so its fault is not this program's
            raise UnreachableError(
                f"{method} {url[:300]!r} cannot be called: {type(error).__name__} {error}"
            ) from error


def bearer(token: str) -> dict[str, str]:
    """The header that a caller is known by."""
    return {"Authorization": f"Bearer {token}"}
