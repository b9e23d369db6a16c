"""Opening a ledger: whose it is, where it lies, what state the file is in."""

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.ledger.builders import Job, settings, trajectory

from asyncppo_runtime.ledger.errors import LedgerUnusableError
from asyncppo_runtime.ledger.filesystem import network_kind
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.reader import LedgerReader

MOUNTINFO = """\
20 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
31 20 0:40 / /data rw,relatime - nfs4 server:/export rw,vers=4.2
32 31 8:1 / /data/local rw - xfs /dev/sda1 rw
33 20 0:41 / /with\\040space rw - fuse.sshfs host:/ rw
34 20 0:42 / /sandbox rw - 9p none rw,trans=fd,rfdno=4
35 20 0:43 / /plan9 rw - 9p host rw,trans=tcp
36 20 0:44 / /layers rw - fuse.fuse-overlayfs none rw
37 20 0:45 / /over rw - tmpfs tmpfs rw
38 20 0:46 / /over rw - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/home/me", ""),
        ("/data/run", "nfs4"),
        ("/data", "nfs4"),
        ("/data/local/run", ""),
        ("/database", ""),
        ("/with space/run", "fuse.sshfs"),
        ("/sandbox/run", ""),
        ("/plan9/run", "9p"),
        ("/layers/run", ""),
        ("/over/run", "cifs"),
    ],
)
def test_network_file_systems_are_told_apart(directory: str, kind: str) -> None:
    assert network_kind(Path(directory), MOUNTINFO) == kind


def test_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("20 1 0:40 / / rw - nfs4 server:/export rw\n")
    monkeypatch.setattr("asyncppo_runtime.ledger.filesystem.MOUNTINFO", mounts)
    with pytest.raises(LedgerUnusableError, match=r"network file system \(nfs4\).*local"):
        Ledger.open(tmp_path / "ledger.db", settings(), 0.0)
    assert not (tmp_path / "ledger.db").exists()


def test_everything_survives_reopening(job: Job) -> None:
    sender = job.member()
    leases = job.grant(sender, 3)
    job.ledger.receive(sender, [trajectory(leases[0])], 1.0)
    before = (
        job.ledger.totals(),
        job.ledger.view(),
        job.ledger.members(),
        job.ledger.trajectories(),
        job.ledger.group_counts(),
    )
    job.reopen()
    after = (
        job.ledger.totals(),
        job.ledger.view(),
        job.ledger.members(),
        job.ledger.trajectories(),
        job.ledger.group_counts(),
    )
    assert after == before


def test_another_job_is_refused(job: Job) -> None:
    job.ledger.close()
    with pytest.raises(LedgerUnusableError, match=r"another job.*choose another folder"):
        Ledger.open(job.path, settings(job_uid="job-2"), 0.0)
    job.ledger = Ledger.open(job.path, settings(), 0.0)


def test_another_jobs_run_is_adopted_where_that_is_asked_for_and_then_is_this_jobs(job: Job) -> None:
    sender = job.member()
    job.grant(sender, 2)
    job.ledger.close()
    with Ledger.open(job.path, settings(job_uid="job-2"), 0.0, adopt=True) as adopted:
        assert adopted.view().job_uid == "job-2"
        assert adopted.totals().leased == 2
    with pytest.raises(LedgerUnusableError, match=r"another job.*learner.adoptStorage"):
        Ledger.open(job.path, settings(), 0.0)
    with pytest.raises(LedgerUnusableError, match="another specification"):
        Ledger.open(job.path, settings(fingerprint="spec-2"), 0.0, adopt=True)
    job.ledger = Ledger.open(job.path, settings(job_uid="job-2"), 0.0)


@pytest.mark.parametrize("change", [{"fingerprint": "spec-2"}, {"group_size": 3}, {"exact": False}])
def test_another_specification_is_refused(job: Job, change: dict[str, object]) -> None:
    job.ledger.close()
    with pytest.raises(LedgerUnusableError, match="another specification"):
        Ledger.open(job.path, replace(job.settings, **change), 0.0)
    job.ledger = Ledger.open(job.path, replace(job.settings, max_attempts=9), 0.0)


def test_a_second_writer_is_refused_until_the_first_is_gone(job: Job) -> None:
    with pytest.raises(LedgerUnusableError, match="in use by another learner"):
        Ledger.open(job.path, job.settings, 0.0)
    job.reopen()


def test_a_killed_writer_leaves_no_lock(job: Job) -> None:
    job.ledger.close()
    program = (
        "import os, signal; from pathlib import Path; from asyncppo_runtime.ledger.ledger import Ledger;"
        "from tests.unit.ledger.builders import settings;"
        f"ledger = Ledger.open(Path({str(job.path)!r}), settings(), 0.0); ledger.join('killed', 'http://x', 1.0);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[3]).returncode == -9
    job.ledger = Ledger.open(job.path, job.settings, 0.0)
    assert [member.name for member in job.ledger.members()] == ["killed"]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused_and_left_alone(job: Job, kept: float) -> None:
    sender = job.member()
    for _ in range(20):
        job.ledger.receive(sender, [trajectory(lease, tokens=60) for lease in job.grant(sender, 8, allowed=1000)], 1.0)
    job.check()
    job.ledger.close()
    whole = job.path.read_bytes()
    part = whole[: int(len(whole) * kept)]
    job.path.write_bytes(part)
    with pytest.raises(LedgerUnusableError, match=r"damaged or truncated.*Restore it"):
        Ledger.open(job.path, job.settings, 0.0)
    assert job.path.read_bytes() == part
    job.path.write_bytes(whole)
    job.ledger = Ledger.open(job.path, job.settings, 0.0)


def test_a_flipped_page_is_refused(job: Job) -> None:
    sender = job.member()
    job.ledger.receive(sender, [trajectory(lease) for lease in job.grant(sender, 8)], 1.0)
    job.ledger.close()
    whole = job.path.read_bytes()
    job.path.write_bytes(whole[:4096] + bytes(4096) * 4 + whole[4096 * 5 :])
    with pytest.raises(LedgerUnusableError, match="damaged"):
        Ledger.open(job.path, job.settings, 0.0)
    job.path.write_bytes(whole)
    job.ledger = Ledger.open(job.path, job.settings, 0.0)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("hello " * 1000)
    with pytest.raises(LedgerUnusableError, match="damaged"):
        Ledger.open(tmp_path / "text.db", settings(), 0.0)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE facts (x)")
    other.commit()
    other.close()
    with pytest.raises(LedgerUnusableError, match="not a ledger"):
        Ledger.open(tmp_path / "other.db", settings(), 0.0)


def test_a_missing_file_with_its_log_is_refused(job: Job) -> None:
    job.ledger.close()
    moved = job.path.rename(job.path.with_name("elsewhere"))
    job.path.with_name("ledger.db-wal").write_bytes(b"x" * 100)
    with pytest.raises(LedgerUnusableError, match="put the file back"):
        Ledger.open(job.path, job.settings, 0.0)
    job.path.with_name("ledger.db-wal").unlink()
    moved.rename(job.path)
    job.ledger = Ledger.open(job.path, job.settings, 0.0)


def test_a_crash_while_creating_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "ledger.db.draft").write_bytes(b"half")
    Ledger.open(tmp_path / "ledger.db", settings(), 0.0).close()
    assert {path.name for path in tmp_path.iterdir()} == {"ledger.db", "ledger.db.lock"}


def test_a_reader_sees_a_running_ledger(job: Job) -> None:
    with LedgerReader.open_read_only(job.path) as reader:
        sender = job.member()
        job.ledger.receive(sender, [trajectory(job.grant(sender, 1)[0])], 1.0)
        assert reader.totals() == job.ledger.totals() == reader.recount()
        assert reader.identity() == ("job-1", "spec-1")
        assert reader.settings == job.settings
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM leases")


def test_a_reader_sees_a_finished_ledger(job: Job) -> None:
    expected = job.ledger.totals()
    job.ledger.close()
    with LedgerReader.open_read_only(job.path) as reader:
        assert reader.totals() == expected
    job.ledger = Ledger.open(job.path, job.settings, 0.0)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnusableError, match="no run has been started"):
        LedgerReader.open_read_only(tmp_path / "ledger.db")
    assert not list(tmp_path.iterdir())
