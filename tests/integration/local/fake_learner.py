"""A learner for tests of the runner: a real process with the real routes that counts updates instead of training.

Flags after the runner's own say how it misbehaves. Not part of the product.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from asyncppo.report.measures import (
    Discrepancy,
    LearnerStatus,
    LedgerTokens,
    LedgerTotals,
    MemberView,
    OldLogits,
    Reward,
    Staleness,
    UpdateMetrics,
)
from asyncppo.wire import routes
from asyncppo.wire.server import application, serve


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--seconds-per-update", type=float, default=0.01)
    parser.add_argument("--crash-once-at", type=int, default=-1)
    parser.add_argument("--crash-always", action="store_true")
    parser.add_argument("--bad-input", action="store_true")
    parser.add_argument("--fail-at", type=int, default=-1)
    parser.add_argument("--never-saves", action="store_true")
    parser.add_argument("--save-fails", action="store_true")
    parser.add_argument("--deaf-at-start", action="store_true")
    parser.add_argument("--grandchild", action="store_true")
    return parser.parse_args()


class Fake:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.directory: Path = arguments.directory
        self.job = json.loads(arguments.job.read_text())
        self.updates = self.job["spec"]["algorithm"]["updates"]
        self.saved = self.directory / "checkpoints" / "update"
        self.saved.parent.mkdir(exist_ok=True)
        self.update = int(self.saved.read_text()) if self.saved.exists() else 0
        self.phase = "Running"
        self.message = ""
        self.stopping = asyncio.Event()

    def status(self) -> LearnerStatus:
        tokens = 40 * self.update
        return LearnerStatus(
            job=self.job["metadata"]["name"],
            phase=self.phase,
            message=self.message,
            update=self.update,
            updates=self.updates,
            version=self.update,
            versions=self.update,
            wall_seconds=self.update * 0.5,
            eta_seconds=float(self.updates - self.update),
            waiting_for="Batch",
            batch_progress=0.5,
            last_reward=self.reward(self.update),
            reward=Reward(first=0.1, last=self.reward(self.update), best=self.reward(self.update)),
            old_logits=OldLogits(strategy="Interruption", exact=True, exact_coverage=1.0),
            staleness=Staleness(mean=0.5, max=1, histogram={0: tokens // 2, 1: tokens // 2}),
            discrepancy=Discrepancy(by_staleness={0: (tokens, 1e-7), 1: (tokens, 1.1e-7)}, slope=1e-8, max_abs=1e-6),
            ledger=LedgerTotals(
                leased=10 * self.update,
                received=10 * self.update,
                trained=10 * self.update,
                tokens=LedgerTokens(sampled=tokens, scored=tokens, trained=tokens),
            ),
            members=[MemberView(name="rollout-0", incarnation=1, state="Ready", version=self.update)],
            time={"Training": 1.0, "Batch": 2.0},
        )

    def reward(self, update: int) -> float:
        return 0.1 + 0.6 * update / max(1, self.updates)

    async def train(self) -> None:
        while self.update < self.updates and not self.stopping.is_set():
            await asyncio.sleep(self.arguments.seconds_per_update)
            self.update += 1
            line = UpdateMetrics(
                update=self.update, version=self.update, at_seconds=0.5 * self.update, reward=self.reward(self.update)
            )
            with (self.directory / "metrics.jsonl").open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
            self.saved.write_text(str(self.update))
            self.misbehave()
            if self.phase == "Failed":
                return
        if not self.stopping.is_set():
            (self.directory / "model").mkdir(exist_ok=True)
            self.phase = "Complete"

    def misbehave(self) -> None:
        crashed = self.directory / "crashed-once"
        if self.update == self.arguments.crash_once_at and not crashed.exists():
            crashed.touch()
            print("the learner's last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.update == self.arguments.fail_at:
            self.phase, self.message = "Failed", "a loss that is not a number"
            print("NaN in the loss", flush=True)

    async def serve(self) -> None:
        host, _, port = self.arguments.listen.rpartition(":")
        app = application(self.arguments.token_file.read_text().strip(), CollectorRegistry(), lambda: "")
        stop_asked = asyncio.Event()

        async def status(_: web.Request) -> web.Response:
            return web.Response(body=msgspec.json.encode(self.status()))

        async def stop(_: web.Request) -> web.Response:
            stop_asked.set()
            return web.Response(body=b"{}")

        app.router.add_get(routes.STATUS, status)
        app.router.add_post(routes.STOP, stop)
        runner, _ = await serve(app, host, int(port))
        url = self.directory / "learner.url"
        url.write_text(f"http://{self.arguments.listen}")
        loop = asyncio.get_running_loop()
        terminated = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, terminated.set)
        training = asyncio.create_task(self.train())
        await asyncio.wait(
            {asyncio.create_task(stop_asked.wait()), asyncio.create_task(terminated.wait())},
            return_when=asyncio.FIRST_COMPLETED,
        )
        self.stopping.set()
        await training
        if self.arguments.never_saves:
            await asyncio.Event().wait()
        if self.arguments.save_fails:
            print("the volume is full", flush=True)
            os._exit(3)
        if stop_asked.is_set():
            (self.directory / "stopped-cleanly").write_text(str(self.update))
        await runner.cleanup()


async def main() -> None:
    arguments = parse()
    (arguments.directory / "ledger.db").touch()
    with (arguments.directory / "learner-starts").open("a") as file:
        file.write("again\n" if (arguments.directory / "checkpoints" / "update").exists() else "fresh\n")
    if arguments.bad_input:
        print("the checkpoint does not match spec.model", flush=True)
        sys.exit(2)
    if arguments.deaf_at_start:
        await asyncio.Event().wait()
    if arguments.crash_always:
        print("Traceback of a fake", flush=True)
        sys.exit(1)
    if arguments.grandchild:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
        (arguments.directory / "grandchild").write_text(str(child.pid))
    await Fake(arguments).serve()


if __name__ == "__main__":
    asyncio.run(main())
