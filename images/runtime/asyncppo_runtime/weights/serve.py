"""The sender's side of the HTTP pull: `GET /v1/weights/{version}`, ranged, tagged with the file's SHA-256.

Owns ranges and tags. Does not own the files (`store.py`), the records (the ledger) nor authentication (the server around it).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import BinaryIO

from aiohttp import web

from asyncppo.wire.server import refusal
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.weights.errors import WeightsGoneError
from asyncppo_runtime.weights.store import WeightStore

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes [start, end) of a file."""

    start: int
    end: int


class RangeRefusedError(ValueError):
    """A range that no byte of the file satisfies (416)."""


def parse_range(header: str, size: int) -> ByteRange | None:
    """RFC 9110 section 14: `bytes=a-b`, `bytes=a-`, `bytes=-n`, against a file of `size` bytes.

    None: send the whole file (no header, another unit, several ranges or a malformed one: a server may ignore those). Raises
    RangeRefusedError when the range is well-formed and lies outside the file.
    """
    unit, separator, spec = header.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not separator or not dash or not _digits(first) or not _digits(last):
        return None
    if not first:
        if not last:
            return None
        length = min(int(last), size)
        if length == 0:
            raise RangeRefusedError(header)
        return ByteRange(size - length, size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise RangeRefusedError(header)
    return ByteRange(start, min(int(last) + 1, size) if last else size)


def weights_handler(
    store: WeightStore, record_of: Callable[[int], Awaitable[VersionRecord | None]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler for `routes.WEIGHTS`.

    record_of: the ledger's record of a version (None: never published). A file that is deleted while it is sent is sent to its
    end. 404 VersionGone for a version without row or file, 412 for a tag that is not the file's or a file that is not as long as its
    record says, 416 for a range outside.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        text = request.match_info["version"]
        record = await record_of(int(text)) if text.isascii() and text.isdecimal() and len(text) < 19 else None
        if record is None:
            return refusal(404, "VersionGone", f"version {text[:20]} was never published")
        tag = f'"{record.file_sha256}"'
        wanted = request.headers.get("If-Match")
        if wanted is not None and wanted.strip() != "*" and tag not in [part.strip() for part in wanted.split(",")]:
            return refusal(412, "WeightsChanged", f"version {record.version} is {tag}")
        try:
            file = await asyncio.to_thread(store.open(record.version).open, "rb")
        except (WeightsGoneError, FileNotFoundError):
            return refusal(404, "VersionGone", f"version {record.version} is retired")
        try:
            size = os.fstat(file.fileno()).st_size
            if size != record.file_size:
                # Not worth asking again: whoever pulls refuses the version, and a version that all refuse stops the job.
                return refusal(
                    412,
                    "WeightsDamaged",
                    f"the file of version {record.version} has {size} bytes, its record {record.file_size}",
                )
            return await _send(request, file, record.file_size, tag)
        finally:
            file.close()

    return handle


async def _send(request: web.Request, file: BinaryIO, size: int, tag: str) -> web.StreamResponse:
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    try:
        part = parse_range(request.headers.get("Range", ""), size)
    except RangeRefusedError:
        return web.Response(status=416, headers=headers | {"Content-Range": f"bytes */{size}"})
    span = part or ByteRange(0, size)
    if part is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    headers["Content-Length"] = str(span.end - span.start)
    response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    file.seek(span.start)
    left = span.end - span.start
    while left:
        # A local file system that has been filled is read from the page cache; a thread keeps a cold one off the loop.
        chunk = await asyncio.to_thread(file.read, min(CHUNK, left))
        if not chunk:
            # Shorter than its record: cut the connection, so that the receiver sees a broken transfer and not a short file.
            if request.transport is not None:
                request.transport.abort()
            break
        left -= len(chunk)
        await response.write(chunk)
    return response


def _digits(text: str) -> bool:
    return not text or (text.isascii() and text.isdecimal() and len(text) < 19)
