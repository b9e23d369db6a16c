"""The receiver's side of the HTTP pull: ranged, resumable, verified before anyone can see the file.

Owns the transfer of one file into a folder. Does not own the route's other end (`serve.py`) nor what is done with the file.

What has arrived lives in `<name>.<sha>.part` next to the target, so a later attempt (in this process or after a restart) asks only
for the rest, under `If-Match` with the record's hash: bytes of two files are never mixed. The file gets its name only after its
size and SHA-256 equal the record's.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import aiohttp

from asyncppo.errors import storage_remedy
from asyncppo.wire import routes
from asyncppo.wire.client import AnswerError, refuse_detours
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.threads import in_thread
from asyncppo_runtime.weights.errors import (
    WeightsGoneError,
    WeightsRefusedError,
    WeightsStorageError,
    WeightsUnreachableError,
)
from asyncppo_runtime.weights.files import file_name, version_of
from asyncppo_runtime.weights.store import sync_folder, verify_file

CHUNK = 1 << 20
PART_SUFFIX = ".part"
LOCK_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True)
class PullLimits:
    """attempts: in a row without a single new byte; progress starts the count again. Seconds otherwise.

    idle: longest silence of the sender before an attempt is given up. pause: before the next attempt, doubled each time up to
    `longest_pause`. corrupt: whole downloads with a wrong hash before the file is refused.
    """

    attempts: int = 5
    idle: float = 20.0
    pause: float = 0.1
    longest_pause: float = 2.0
    corrupt: int = 2


class _RetryError(Exception):
    """This attempt failed in a way that another may not; never leaves this module."""


async def pull(
    session: aiohttp.ClientSession,
    base_url: str,
    record: VersionRecord,
    directory: Path,
    limits: PullLimits = PullLimits(),
    route: str = routes.WEIGHTS,
) -> Path:
    """Bring the file of `record` into `directory`; returns its path. A file that is already there and verifies is not fetched.

    session: carries the caller's token (`WireClient.session`). route: where the sender serves it. Bound the whole call with
    `asyncio.timeout`; a cancelled pull keeps what it has. Pulls of the same file into the same folder wait for each other, across
    processes too.
    Raises WeightsRefusedError (wrong bytes), WeightsGoneError (404), WeightsStorageError (disk), WeightsUnreachableError.
    """
    final = directory / file_name(record.version)
    part = directory / f"{final.name}.{record.file_sha256[:16]}{PART_SUFFIX}"
    url = base_url + route.format(version=record.version)
    with _storage(final):
        os.makedirs(directory, exist_ok=True)
        async with _locked(directory / f".{final.name}{LOCK_SUFFIX}"):
            if await _verified(final, record):
                return final
            await _download(session, url, record, part, limits)
            await in_thread(_put_in_place, part, final)
    return final


class HttpTransport:
    """`WeightTransport` over HTTP from the learner at `base_url` into `directory`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        directory: Path,
        limits: PullLimits = PullLimits(),
        route: str = routes.WEIGHTS,
    ) -> None:
        self._session = session
        self._base_url = base_url
        self._directory = directory
        self._limits = limits
        self._route = route

    async def fetch(self, record: VersionRecord) -> Path:
        """See `WeightTransport.fetch`."""
        return await pull(self._session, self._base_url, record, self._directory, self._limits, self._route)

    def keep(self, versions: set[int]) -> None:
        """See `WeightTransport.keep`. Unfinished downloads of other versions go as well."""
        if not self._directory.is_dir():
            return
        names = {file_name(version) for version in versions}
        for path in self._directory.iterdir():
            whole = _target_of(path.name)
            if version_of(whole) is not None and whole not in names:
                path.unlink(missing_ok=True)


async def _download(
    session: aiohttp.ClientSession, url: str, record: VersionRecord, part: Path, limits: PullLimits
) -> None:
    fruitless = corrupt = 0
    while True:
        before = _size(part)
        failure = ""
        if before < record.file_size:
            try:
                await _attempt(session, url, record, part, before, limits)
            except (_RetryError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                failure = f"{type(error).__name__} {error}".strip()
        after = _size(part)
        if after == record.file_size and await _digest(part) == record.file_sha256:
            return
        if after >= record.file_size:
            _remove(part)
            corrupt += 1
            if corrupt >= limits.corrupt:
                raise WeightsRefusedError(
                    f"{url}: version {record.version} arrived {corrupt} times with a hash that is not its record's; "
                    "the sender's file is damaged"
                )
            continue
        fruitless = 0 if after > before else fruitless + 1
        if fruitless >= limits.attempts:
            raise WeightsUnreachableError(
                f"{url}: {fruitless} attempts brought nothing new ({after} of {record.file_size} bytes are here): "
                f"{failure or 'the answer was short'}"
            )
        await asyncio.sleep(min(limits.longest_pause, limits.pause * 2**fruitless))


async def _attempt(
    session: aiohttp.ClientSession, url: str, record: VersionRecord, part: Path, offset: int, limits: PullLimits
) -> None:
    """One request for the bytes from `offset` on, appended to `part` as they come."""
    headers = {"If-Match": f'"{record.file_sha256}"'}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.idle, sock_read=limits.idle)
    async with session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
        try:
            refuse_detours(response)
        except AnswerError as error:
            raise _RetryError(str(error)) from error
        if response.status in (404, 410):
            raise WeightsGoneError(f"{url}: version {record.version} is retired or was never published")
        if response.status == 412:
            raise WeightsRefusedError(
                f"{url}: the sender's version {record.version} is another file than its record's, or damaged"
            )
        if response.status in (401, 403):
            raise WeightsRefusedError(f"{url}: status {response.status}; is this the job's token?")
        if response.status == 416:
            _remove(part)
            raise _RetryError("status 416")
        if response.status not in (200, 206):
            raise _RetryError(f"status {response.status}")
        start = 0
        if response.status == 206:
            start = _content_start(response.headers.get("Content-Range", ""))
            if start != offset:
                raise _RetryError(f"asked for bytes from {offset}, got them from {start}")
        # A sender that ignores ranges starts again at 0, and so does the file.
        with _opened(part, start) as file:
            written = start
            async for chunk in response.content.iter_chunked(CHUNK):
                written += len(chunk)
                if written > record.file_size:
                    file.truncate(0)
                    raise WeightsRefusedError(f"{url}: sends more than the {record.file_size} bytes of its record")
                await in_thread(file.write, chunk)


def _target_of(name: str) -> str:
    """The weights file that `name` is, is a part of, or is the lock of."""
    if name.endswith(PART_SUFFIX):
        return name.removesuffix(PART_SUFFIX).rpartition(".")[0]
    if name.endswith(LOCK_SUFFIX):
        return name.removeprefix(".").removesuffix(LOCK_SUFFIX)
    return name


def _content_start(header: str) -> int:
    first = header.removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isascii() and first.isdecimal() else -1


def _opened(part: Path, start: int) -> BinaryIO:
    file = part.open("r+b" if part.exists() else "w+b")
    try:
        file.truncate(start)
        file.seek(start)
    except BaseException:
        file.close()
        raise
    return file


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def _digest(path: Path) -> str:
    def read() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return await in_thread(read)


async def _verified(final: Path, record: VersionRecord) -> bool:
    """Whether the target is there and right; a wrong one (left by a fault of the disk) is deleted."""
    if not _size(final):
        return False
    try:
        await in_thread(verify_file, final, record)
    except WeightsRefusedError:
        _remove(final)
        return False
    return True


def _put_in_place(part: Path, final: Path) -> None:
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(final)
    sync_folder(final.parent)


@contextlib.contextmanager
def _storage(final: Path) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise WeightsStorageError(f"{final} could not be written: {error}; {storage_remedy(error)}") from error


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Exclusive over `path` among coroutines and processes; the lock file stays, a lock of a dead process does not."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
