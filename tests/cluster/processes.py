"""The operator as a process, and a learner that answers what the test wants it to."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import ClassVar

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.kubernetes import until

from asyncppo.report.measures import LearnerStatus
from asyncppo.wire import routes
from asyncppo.wire.server import answer, application, serve
from asyncppo.wire.syncing import SyncView


class OperatorProcess:
    """`python -m asyncppo_operator.main` with one configuration."""

    def __init__(self, config: Path, log: Path, port: int, kubeconfig: str, name: str) -> None:
        self.config = config
        self.log = log
        self.base = f"http://127.0.0.1:{port}"
        self._environment = {**os.environ, "KUBECONFIG": kubeconfig, "POD_ID": name}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Begin, or begin again; returns when /healthz answers."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "asyncppo_operator.main", "--config", str(self.config),
                env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip
        await until(self._healthy, "the operator's port")

    async def kill(self) -> None:
        """As a node does that loses power."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def end(self) -> int:
        """As Kubernetes does; the exit status."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                await self._process.wait()
        return int(self._process.returncode or 0)

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return self._process is None or self._process.returncode is not None

    async def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every sample by name and labels."""
        text = await self._get("/metrics")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def metric(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of this name that have these labels; None when there is none."""
        wanted = labels.items()
        found = [v for (sample, have), v in (await self.metrics()).items() if sample == name and wanted <= set(have)]
        return sum(found) if found else None

    async def unready(self) -> str:
        """Why it is not ready; empty when it is."""
        async with aiohttp.ClientSession() as session, session.get(self.base + "/readyz") as response:
            return "" if response.status == 200 else (await response.text()).strip()

    async def _get(self, path: str) -> str:
        async with aiohttp.ClientSession() as session, session.get(self.base + path) as response:
            return await response.text()

    async def _healthy(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError(f"the operator ended with {self._process.returncode}:\n{self.log.read_text()[-3000:]}")
        try:
            return await self._get("/healthz") == "ok\n"
        except aiohttp.ClientError:
            return False


class LearnerDouble:
    """Answers /v1/status with `status` and /v1/sync with a job that wants nothing."""

    serving: ClassVar[set["LearnerDouble"]] = set()

    def __init__(self, token: str, uid: str, status: LearnerStatus) -> None:
        self.status = status
        self.asked = 0
        self._uid = uid
        self._app = application(token, CollectorRegistry(), lambda: "")
        self._app.router.add_get(routes.STATUS, self._status)
        self._app.router.add_get(routes.SYNC, self._sync)
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Serve."""
        self._runner, _ = await serve(self._app, host, port)
        self.serving.add(self)

    async def stop(self) -> None:
        """Serve no more."""
        self.serving.discard(self)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _status(self, _: web.Request) -> web.StreamResponse:
        self.asked += 1
        return web.Response(body=msgspec.json.encode(self.status), content_type="application/json")

    async def _sync(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(min(1.0, float(request.query.get("wait", "0"))))
        view = SyncView(
            job_uid=self._uid, column="Barrier", epoch=0, owner="", open=False, sealed=False, version=0, wanted=False,
            stepped=False, members=[], record=None, canary=None,
        )  # fmt: skip
        return answer(view)
