"""How many trajectories a second the ledger takes on this disk: grants, receipts, scores and whole updates, each durable.

Run: python benchmarks/ledger.py [--directory DIR] [--trajectories N] [--segments N] [--tokens N] [--upload N]

Every upload is one transaction with one fsync, so the disk decides small uploads and Python large ones; `--upload` is the number of
trajectories in one. Prints rates; asserts nothing but that the counts still equal the rows.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from asyncppo.sync.columns import SealRule
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease, Segment, Trajectory
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import LedgerSettings, Score

T = TypeVar("T")
GROUP_SIZE = 8
HASH = "0" * 64


def version(number: int) -> VersionRecord:
    """A version all of whose hashes are the same."""
    return VersionRecord(
        version=number,
        parent=number - 1,
        lineage=0,
        train_hash=HASH,
        published_hash=HASH,
        file_size=1,
        file_sha256=HASH,
    )


def episode(lease: Lease, segments: int, tokens: int) -> Trajectory:
    """A finished trajectory: as many segments as asked for, an environment token before each."""
    step = tokens + 1
    parts = [
        Segment(index, index * step + 1, (index + 1) * step, 0, HASH, [-0.5] * tokens) for index in range(segments)
    ]
    ids = list(range(segments * step))
    return Trajectory(
        lease_id=lease.lease_id,
        group_id=lease.group_id,
        token_ids=ids,
        segments=parts,
        finished=True,
        end_reason="done",
    )


def timed(name: str, count: int, unit: str, act: Callable[[], T]) -> T:
    """Do it and print how many a second."""
    start = time.perf_counter()
    result = act()
    seconds = time.perf_counter() - start
    print(f"{name:<28}{count:>9} {unit:<13}{seconds:>8.2f} s {count / seconds:>12,.0f} / s")
    return result


def run(directory: Path, trajectories: int, segments: int, tokens: int, upload: int) -> None:
    """One pass over everything a ledger does for so many trajectories."""
    settings = LedgerSettings("benchmark", "benchmark", GROUP_SIZE, 0, SealRule.NONE, exact=True)
    with Ledger.open(directory / "ledger.db", settings, 0.0) as ledger:
        ledger.publish(version(0), None, [], [], b"", 0.0)
        incarnation = ledger.join("rollout-0", "http://rollout-0", 0.0).incarnation
        sender = Envelope(job_uid="benchmark", epoch=0, target="rollout-0", incarnation=incarnation)
        ledger.ready(sender, 0, HASH, 0.0)

        def grant() -> list[Lease]:
            leases: list[Lease] = []
            while len(leases) < trajectories:
                leases += ledger.grant(sender, 0, min(upload, trajectories - len(leases)), trajectories, 60.0, 0.0)
            return leases

        leases = timed("leases granted", trajectories, "leases", grant)
        bodies = [episode(lease, segments, tokens) for lease in leases]
        chunks = [bodies[start : start + upload] for start in range(0, len(bodies), upload)]

        def receive() -> None:
            for chunk in chunks:
                ledger.receive(sender, chunk, 0.0)

        timed(f"received, {upload} an upload", trajectories, "trajectories", receive)
        timed("received again (duplicates)", trajectories, "trajectories", receive)
        items = timed("read to be scored", trajectories * segments, "segments", ledger.unscored)
        scores = [Score(item.key, np.asarray(item.behavior_logprobs), 0, HASH, "exact_snapshot") for item in items]
        timed("scored", len(scores), "segments", lambda: ledger.record_scores(scores, 0.0))
        ready = [
            group.group_id
            for group in timed("looked for batches", 100, "calls", lambda: [ledger.ready_groups() for _ in range(100)])[
                0
            ]
        ]
        timed("loaded for training", len(ready) * GROUP_SIZE, "trajectories", lambda: ledger.load_groups(ready))
        timed(
            "marked as trained",
            len(ready) * GROUP_SIZE,
            "trajectories",
            lambda: ledger.publish(version(1), None, ready, [], b"", 0.0),
        )
        timed("totals", 10_000, "calls", lambda: [ledger.totals() for _ in range(10_000)])
        timed(
            "heartbeats of 256 leases",
            200,
            "calls",
            lambda: [ledger.heartbeat(sender, 0, range(256), 0.0) for _ in range(200)],
        )
        if ledger.totals() != ledger.recount():
            raise SystemExit("the counts are not the rows'")
    size = sum(path.stat().st_size for path in directory.iterdir())
    print(
        f"{size / 2**20:.1f} MiB on disk, {size / trajectories:,.0f} bytes a trajectory of {segments} x {tokens} sampled tokens"
    )


def main() -> None:
    """Parse, run in a folder of its own, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--directory", type=Path, default=None, help="where to put the file; decides which disk is measured"
    )
    parser.add_argument("--trajectories", type=int, default=8192)
    parser.add_argument("--segments", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--upload", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="ledger-") as directory:
        run(Path(directory), arguments.trajectories, arguments.segments, arguments.tokens, arguments.upload)


if __name__ == "__main__":
    main()
