"""What a coordinator adds to a sync: milliseconds and CPU per phase, against 16, 64 and 256 simulated rollouts over real HTTP.

    python benchmarks/coordinator.py [--rollouts 16,64,256] [--syncs 20] [--work 0.05] [--column Barrier]

The learner and the rollouts run in other processes; this one is the coordinator alone, so that its CPU is its own. Rollout i of n takes
i/n of `--work` seconds for each command. "over" is the median time of a phase beyond that of its slowest rollout (beyond nothing, in a
phase that calls the learner): what the coordinator, HTTP and the simulated learner add. The aims are 10 ms with 16 rollouts and 100 ms
with 256, in every phase; the exit code is 1 when one is missed.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from statistics import median

from asyncppo.sync.columns import COLUMNS, MEMBER_PHASES, Phase
from asyncppo.sync.coordinator import Coordinator
from asyncppo.sync.limits import SyncLimits
from asyncppo.sync.machine import State
from asyncppo.sync.simulation.learner import SimulatedLearner
from asyncppo.sync.simulation.rollout import SimulatedRollout
from asyncppo.wire.client import WireClient

TOKEN = "benchmark"
AIMS_MS = {16: 10.0, 256: 100.0}
PROCESSES = 2


class Meter:
    """Seconds and CPU seconds of each phase, one figure per sync."""

    def __init__(self) -> None:
        self.wall: dict[Phase, list[float]] = defaultdict(list)
        self.cpu: dict[Phase, list[float]] = defaultdict(list)
        self._cpu = time.process_time()

    def __call__(self, before: State, after: State, seconds: float) -> None:
        cpu = time.process_time()
        if before.phase is not Phase.IDLE:
            self.wall[before.phase].append(seconds)
            self.cpu[before.phase].append(cpu - self._cpu)
        self._cpu = cpu


async def serve_learner(column: str, syncs: int) -> None:
    """A process of its own: says its address, and lives until its input ends."""
    learner = SimulatedLearner(TOKEN, column, syncs, pace=0.05)
    await learner.start()
    print(learner.url, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await learner.stop()


async def serve_rollouts(learner: str, column: str, work: list[float], first: int) -> None:
    """The same for some of the rollouts. They seldom beat: heartbeats are not what is measured."""
    rollouts = [
        SimulatedRollout(TOKEN, learner, f"r{first + number}", column=column, beat=5.0, work=seconds)
        for number, seconds in enumerate(work)
    ]
    for rollout in rollouts:
        await rollout.start()
    await asyncio.gather(*(rollout.ready.wait() for rollout in rollouts))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for rollout in rollouts:
        await rollout.stop()


def child(*arguments: str) -> "subprocess.Popen[str]":
    """This file again, as one of the others."""
    return subprocess.Popen(
        [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def said(program: "subprocess.Popen[str]") -> str:
    """A line a child says. RuntimeError when it died instead."""
    assert program.stdout is not None
    line = program.stdout.readline().strip()
    if not line:
        raise RuntimeError("a simulated peer died; its words are above")
    return line


def measure(column: str, rollouts: int, syncs: int, work: float) -> Meter:
    """One job of `syncs` versions."""
    learner = child("--serve-learner", "--column", column, "--syncs", str(syncs))
    url = said(learner)
    share = -(-rollouts // PROCESSES)
    children = [learner]
    for first in range(0, rollouts, share):
        seconds = [work * (number + 1) / rollouts for number in range(first, min(rollouts, first + share))]
        children.append(
            child(
                "--serve-rollouts",
                url,
                "--column",
                column,
                "--first",
                str(first),
                "--works",
                ",".join(map(str, seconds)),
            )
        )
    try:
        for rollout in children[1:]:
            said(rollout)
        return asyncio.run(coordinate(url))
    finally:
        for program in reversed(children):
            program.communicate()


async def coordinate(url: str) -> Meter:
    """The coordinator of that job, from its first sync to its last."""
    meter = Meter()
    async with WireClient(TOKEN) as client:
        await Coordinator(client, url, "benchmark", SyncLimits(), meter).run()
    return meter


def report(column: str, rollouts: int, work: float, meter: Meter) -> bool:
    """Print the phases; whether the aim for this many rollouts is met."""
    print(
        f"\n{column}, {rollouts} rollouts, {len(meter.wall[Phase.SEAL])} syncs, the slowest takes {work * 1e3:.0f} ms"
    )
    print(f"{'phase':<9}{'ms':>9}{'p95':>9}{'over':>9}{'CPU ms':>9}")
    worst = 0.0
    for phase in COLUMNS[column].phases:
        wall = sorted(seconds * 1e3 for seconds in meter.wall[phase])
        # The first sync opens the connections; it is in p95.
        over = median(wall) - (work * 1e3 if phase in MEMBER_PHASES else 0.0)
        worst = max(worst, over)
        p95 = wall[min(len(wall) - 1, int(len(wall) * 0.95))]
        print(f"{phase:<9}{median(wall):>9.1f}{p95:>9.1f}{over:>9.1f}{median(meter.cpu[phase]) * 1e3:>9.1f}")
    aim = AIMS_MS.get(rollouts)
    if aim is None:
        return True
    print(f"{'aim':<9}{aim:>27.1f}{'   met' if worst <= aim else '   missed'}")
    return worst <= aim


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", default="16,64,256", help="how many; several separated by commas")
    parser.add_argument("--syncs", type=int, default=20, help="versions per measurement")
    parser.add_argument("--work", type=float, default=0.05, help="seconds the slowest rollout takes for a command")
    parser.add_argument("--column", choices=sorted(COLUMNS), default="Barrier")
    parser.add_argument("--serve-learner", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve-rollouts", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--works", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """The benchmark, or one of its peers."""
    options = arguments()
    if options.serve_learner:
        asyncio.run(serve_learner(options.column, options.syncs))
        return 0
    if options.serve_rollouts:
        work = [float(part) for part in options.works.split(",")]
        asyncio.run(serve_rollouts(options.serve_rollouts, options.column, work, options.first))
        return 0
    met = [
        report(options.column, count, options.work, measure(options.column, count, options.syncs, options.work))
        for count in map(int, options.rollouts.split(","))
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
