"""When the volume fails: full, broken, or the program killed in the middle. Nothing is half-written."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.ledger.builders import Job, settings, trajectory
from tests.unit.ledger.volumes import FailingCommit

from asyncppo_runtime.ledger import database
from asyncppo_runtime.ledger.errors import LedgerStorageError
from asyncppo_runtime.ledger.ledger import Ledger

ROOT = Path(__file__).parents[3]


def fill_up(job: Job) -> None:
    """Not one page more than there is."""
    connection = job.ledger._db.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")


def make_room(job: Job) -> None:
    job.ledger._db.connection.execute("PRAGMA max_page_count=1000000")


def test_the_real_setting_survives_power_loss() -> None:
    source = Path(database.__file__).read_text()
    assert 'SYNCHRONOUS = "FULL"' in source
    assert "journal_mode=WAL" in source


def test_a_full_volume_refuses_the_call_whole_and_the_ledger_goes_on(job: Job) -> None:
    sender = job.member()
    leases = job.grant(sender, 8)
    before = (job.ledger.totals(), job.ledger.view(), job.ledger.trajectories(), job.ledger.events())
    fill_up(job)
    with pytest.raises(LedgerStorageError, match="volume is full; nothing was written") as full:
        job.ledger.receive(sender, [trajectory(lease, [0] * 8, tokens=200) for lease in leases], 1.0)
    assert not full.value.fatal
    assert (job.ledger.totals(), job.ledger.view(), job.ledger.trajectories(), job.ledger.events()) == before
    job.check()
    make_room(job)
    receipt = job.ledger.receive(sender, [trajectory(lease, [0] * 8, tokens=200) for lease in leases], 1.0)
    assert len(receipt.received) == 8


def test_counts_of_a_call_that_failed_are_forgotten(job: Job) -> None:
    sender = job.member()
    job.grant(sender, 2)
    db = job.ledger._db

    def defect() -> None:
        with db.transaction():
            db.counters.add("leased", 5)
            db.execute("INSERT INTO leases SELECT * FROM leases")

    with pytest.raises(sqlite3.IntegrityError):
        defect()
    assert job.ledger.totals().leased == 2
    job.check()


FAILING = """
import json, resource, signal, sys
from pathlib import Path
from asyncppo_runtime.ledger.errors import LedgerStorageError
from tests.unit.ledger.builders import Job, trajectory

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
job = Job(Path(sys.argv[1]))
job.publish(0)
sender = job.member()
leases = job.grant(sender, 64, allowed=64)
log = Path(sys.argv[1] + "-wal")
resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + int(sys.argv[2]), resource.RLIM_INFINITY))
done, failures = 0, []
for lease in leases:
    try:
        job.ledger.receive(sender, [trajectory(lease, [0, 0, 0], tokens=100)], 1.0)
        done += 1
    except LedgerStorageError as error:
        failures.append(error.fatal)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps([done, len(failures)]))
"""


@pytest.mark.parametrize("room", [60_000, 100_001])
def test_a_volume_that_breaks_keeps_all_that_was_acknowledged(tmp_path: Path, room: int) -> None:
    path = tmp_path / "ledger.db"
    run = subprocess.run(
        [sys.executable, "-c", FAILING, str(path), str(room)], check=True, capture_output=True, text=True, cwd=ROOT
    )
    done, failures = json.loads(run.stdout)
    assert done > 0
    assert failures > 0
    with Ledger.open(path, settings(), 0.0) as ledger:
        assert ledger.totals() == ledger.recount()
        # A commit whose outcome was unknown may turn out to have happened; one that was acknowledged never gets lost.
        assert done <= ledger.totals().received <= done + failures


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from tests.unit.ledger.builders import Job, trajectory

job = Job(Path(sys.argv[1]))
job.publish(0)
sender = job.member()
print("ready", flush=True)
while True:
    leases = job.grant(sender, 8, allowed=1 << 30)
    job.ledger.receive(sender, [trajectory(lease, [0, 0], tokens=50) for lease in leases], 1.0)
    print(leases[-1].lease_id, flush=True)
"""


def test_a_killed_learner_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        acknowledged = 0
        for _ in range(25):
            acknowledged = int(process.stdout.readline())
        process.kill()
        rest = process.stdout.read().split()
        acknowledged = max(
            [acknowledged, *map(int, (line for line in rest if line.isdecimal() and int(line) % 8 == 0))]
        )
    with Ledger.open(path, settings(), 0.0) as ledger:
        totals = ledger.totals()
        assert totals.balanced
        assert totals == ledger.recount()
        assert totals.received >= acknowledged
        assert totals.received + totals.in_flight == totals.leased


def test_after_an_unknown_outcome_the_ledger_must_be_opened_again(job: Job) -> None:
    real = job.ledger._db.connection
    job.ledger._db.connection = FailingCommit(real, sqlite3.SQLITE_IOERR_FSYNC)  # type: ignore[assignment]
    with pytest.raises(LedgerStorageError, match="the volume failed") as failed:
        job.ledger.join("r0", "http://x", 1.0)
    assert failed.value.fatal
    job.ledger._db.connection = real
    with pytest.raises(LedgerStorageError, match="open the ledger again"):
        job.ledger.join("r0", "http://x", 1.0)
    job.reopen()
    assert job.ledger.members() == []
