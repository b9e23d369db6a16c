"""Builders for weights tests: tensors, records, and a real server on a free port whose transfers can be cut, bent or counted."""

import hashlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import torch
from aiohttp import web
from prometheus_client import CollectorRegistry

from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.server import application, serve
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.weights.serve import weights_handler
from asyncppo_runtime.weights.store import StoredFile, WeightStore

TOKEN = "secret"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def tensors(seed: int = 0, size: int = 64) -> dict[str, torch.Tensor]:
    """A few tensors of different shapes."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": torch.randn(size, 8, generator=generator),
        "layer.0.bias": torch.randn(8, generator=generator),
        "scale": torch.randn((), generator=generator),
        "steps": torch.arange(3),
    }


def record_of(file: StoredFile) -> VersionRecord:
    """The record that names this file."""
    return VersionRecord(
        version=file.version, parent=file.version - 1, lineage=0, train_hash="t", published_hash="p",
        file_size=file.size, file_sha256=file.sha256,
    )  # fmt: skip


def record_of_bytes(body: bytes, version: int = 0) -> VersionRecord:
    """The record of a file with these bytes."""
    return record_of(StoredFile(version, Path(), len(body), hashlib.sha256(body).hexdigest()))


@dataclass
class Sender:
    """A learner's weights route. `ranges`: the Range header of every request. `faults`: handlers that answer instead, first first."""

    base_url: str
    store: WeightStore
    records: dict[int, VersionRecord]
    ranges: list[str] = field(default_factory=list)
    faults: list[Handler] = field(default_factory=list)

    def publish(self, version: int, seed: int = 0, size: int = 64) -> VersionRecord:
        """Write a file and its record."""
        record = record_of(self.store.publish(version, tensors(seed, size)))
        self.records[version] = record
        return record

    def put(self, body: bytes, version: int = 0) -> VersionRecord:
        """A file of any bytes."""
        self.store.path(version).write_bytes(body)
        self.records[version] = record_of_bytes(body, version)
        return self.records[version]


@asynccontextmanager
async def sender(directory: Path) -> AsyncIterator[Sender]:
    """Serve a weight store on a free port."""
    store, records = WeightStore(directory), {}

    async def find(version: int) -> VersionRecord | None:
        return records.get(version)

    app = application(TOKEN, CollectorRegistry(), lambda: "")
    handle = weights_handler(store, find)
    made = Sender("", store, records)

    async def counted(request: web.Request) -> web.StreamResponse:
        made.ranges.append(request.headers.get("Range", ""))
        return await (made.faults.pop(0) if made.faults else handle)(request)

    app.router.add_get(routes.WEIGHTS, counted)
    runner, port = await serve(app, "127.0.0.1", 0)
    made.base_url = f"http://127.0.0.1:{port}"
    try:
        yield made
    finally:
        await runner.cleanup()


@asynccontextmanager
async def session(token: str = TOKEN) -> AsyncIterator[aiohttp.ClientSession]:
    """A client session with the job's token."""
    async with WireClient(token) as client:
        yield client.session


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process may grow past `room` bytes (EFBIG, as near to a full disk as a test gets without one)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def cut_after(body: bytes, count: int) -> Handler:
    """Send the honest headers of the range asked for and only `count` bytes of it, then drop the connection."""

    async def handle(request: web.Request) -> web.StreamResponse:
        header = request.headers.get("Range", "bytes=0-")
        start = int(header.removeprefix("bytes=").partition("-")[0])
        part = body[start:]
        response = web.StreamResponse(
            status=206,
            headers={"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}", "Content-Length": str(len(part))},
        )
        await response.prepare(request)
        await response.write(part[:count])
        if request.transport is not None:
            request.transport.close()
        return response

    return handle


def answer_with(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Handler:
    """Answer just this."""

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return handle
