"""Bits that change and transactions that go missing are noticed, whatever they hit; whole ledgers are never called damaged."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from tests.unit.ledger.builders import Job, settings, trajectory

from asyncppo_runtime.ledger import database, page_sums
from asyncppo_runtime.ledger.database import looking
from asyncppo_runtime.ledger.errors import LedgerUnusableError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.page_sums import SumsFile, read_sums, sums_path
from asyncppo_runtime.ledger.reader import LedgerReader

ROOT = Path(__file__).parents[3]


def busy(job: Job, rounds: int = 12) -> None:
    """Something of everything: leases, trajectories, scores, versions."""
    sender = job.member()
    now = job.ledger.view().announced
    for _ in range(rounds):
        leases = job.grant(sender, 4, allowed=1000)
        job.ledger.receive(sender, [trajectory(lease, [now], tokens=40) for lease in leases], 1.0)
    job.ledger.commit_checkpoint(job.sync(sender), "checkpoints/any", 1.0)


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every value of every table."""
    with looking(path) as looked:
        db = looked.database
        tables = [row[0] for row in db.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        return {table: db.rows(f"SELECT * FROM {table}") for table in tables}


def refusal_or_same(path: Path, expected: object) -> str:
    """Why the ledger is refused; "" when it is read, and then it says what it said before."""
    try:
        found = contents(path)
    except LedgerUnusableError as error:
        return str(error)
    assert found == expected
    return ""


def killed(job: Job, into: Path) -> Path:
    """The ledger as a kill would leave it now: the files copied while it is open."""
    into.mkdir()
    for file in job.path.parent.glob("ledger.db*"):
        if file.is_file() and not file.name.endswith("-shm"):
            shutil.copy(file, into / file.name)
    return into / "ledger.db"


def files(folder: Path) -> dict[str, bytes]:
    """Every file but SQLite's index of the log, which a reader makes anew."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


def flip(path: Path, chance: Random, bits: int = 3) -> bytes:
    """`bits` bits of the file are inverted; what it held before."""
    whole = path.read_bytes()
    changed = bytearray(whole)
    for at in chance.sample(range(len(whole) * 8), bits):
        changed[at // 8] ^= 1 << at % 8
    path.write_bytes(changed)
    return whole


def test_three_flipped_bits_anywhere_are_noticed_and_named(job: Job) -> None:
    busy(job)
    job.ledger.close()
    chance, named = Random(3), set()
    for _ in range(200):
        whole = flip(job.path, chance)
        with pytest.raises(LedgerUnusableError, match=r"ledger\.db is damaged or truncated.*Restore it") as refused:
            Ledger.open(job.path, job.settings, 0.0)
        named.add(str(refused.value).split("(")[1].split(")")[0])
        job.path.write_bytes(whole)
    assert any("of segments" in words and "by its checksum" in words for words in named)
    job.ledger = Ledger.open(job.path, job.settings, 0.0)


def test_what_sqlite_itself_does_not_see_is_seen(job: Job) -> None:
    """One bit of a log-prob: the structure is whole, and so is every index."""
    busy(job)
    value = job.ledger._db.row("SELECT behavior FROM segments LIMIT 1")
    assert value is not None
    job.ledger.close()
    whole = job.path.read_bytes()
    at = whole.index(value[0])
    job.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with closing(sqlite3.connect(job.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with pytest.raises(LedgerUnusableError, match=r"page \d+ of \d+, of segments"):
        Ledger.open(job.path, job.settings, 0.0)
    job.path.write_bytes(whole)
    job.ledger = Ledger.open(job.path, job.settings, 0.0)


def test_flips_in_the_log_are_noticed_or_change_nothing(job: Job, tmp_path: Path) -> None:
    busy(job, 3)
    path = killed(job, tmp_path / "killed")
    expected, chance, noticed = contents(path), Random(5), 0
    log = path.with_name("ledger.db-wal")
    for _ in range(60):
        whole = flip(log, chance)
        refusal = refusal_or_same(path, expected)
        assert not refusal or "older than it was" in refusal or "damaged" in refusal
        noticed += bool(refusal)
        log.write_bytes(whole)
        path.with_name("ledger.db-shm").unlink(missing_ok=True)
    assert noticed > 30


def test_flips_in_the_file_of_checksums_are_noticed_or_change_nothing(job: Job) -> None:
    busy(job, 3)
    job.ledger.close()
    expected, chance = contents(job.path), Random(7)
    for _ in range(60):
        whole = flip(sums_path(job.path), chance)
        refusal = refusal_or_same(job.path, expected)
        assert not refusal or "Nothing was changed" in refusal
        sums_path(job.path).write_bytes(whole)
    sums_path(job.path).write_bytes(whole[:50])
    with pytest.raises(LedgerUnusableError, match=r"ledger\.db\.sums is damaged"):
        Ledger.open(job.path, job.settings, 0.0)
    sums_path(job.path).write_bytes(whole)
    job.ledger = Ledger.open(job.path, job.settings, 0.0)


@pytest.mark.parametrize("damage", ["half", "gone", "empty", "flipped early"])
def test_a_log_that_lost_transactions_is_refused_and_nothing_is_written(job: Job, tmp_path: Path, damage: str) -> None:
    busy(job, 3)
    path = killed(job, tmp_path / "killed")
    log = path.with_name("ledger.db-wal")
    content = log.read_bytes()
    if damage == "gone":
        log.unlink()
    else:
        log.write_bytes({"half": content[: len(content) // 2], "empty": b""}.get(damage, b"x" + content[1:]))
    before = files(path.parent)
    with pytest.raises(LedgerUnusableError, match=r"older than it was: it holds .* transactions.*Put back the ledger"):
        Ledger.open(path, job.settings, 0.0)
    assert files(path.parent) == before
    # The way out that the message names: an older ledger is gone on with once the user has said so.
    sums_path(path).unlink()
    Ledger.open(path, job.settings, 0.0).close()


@pytest.mark.parametrize("content", [b"", b"SQLite", b"hello " * 1000])
def test_a_file_that_was_emptied_keeps_its_log(job: Job, tmp_path: Path, content: bytes) -> None:
    """SQLite deletes the log of an empty file, though it only reads."""
    busy(job, 2)
    path = killed(job, tmp_path / "killed")
    path.write_bytes(content)
    before = files(path.parent)
    for attempt in (
        lambda: Ledger.open(path, job.settings, 0.0),
        lambda: LedgerReader.open_read_only(path),
        lambda: contents(path),
    ):
        with pytest.raises(LedgerUnusableError, match="damaged"):
            attempt()
        assert files(path.parent) == before


def test_an_older_copy_of_the_file_alone_is_refused(job: Job, tmp_path: Path) -> None:
    busy(job, 2)
    job.ledger.close()
    older = job.path.read_bytes()
    job.ledger = Ledger.open(job.path, job.settings, 0.0)
    busy(job, 2)
    job.ledger.close()
    newer = job.path.read_bytes()
    job.path.write_bytes(older)
    with pytest.raises(LedgerUnusableError, match="Nothing was changed"):
        Ledger.open(job.path, job.settings, 0.0)
    job.path.write_bytes(newer)
    job.ledger = Ledger.open(job.path, job.settings, 0.0)


WRITER = """
import sys
from pathlib import Path
from asyncppo_runtime.ledger import database
from tests.unit.ledger.builders import Job, trajectory

database.FOLD_AT_FRAMES = 12
job = Job(Path(sys.argv[1]))
if job.ledger.view().version < 0:
    job.publish(0)
sender = job.member()
while True:
    leases = job.grant(sender, 4, allowed=1 << 30)
    job.ledger.receive(sender, [trajectory(lease, [0, 0], tokens=50) for lease in leases], 1.0)
    print(leases[-1].lease_id, flush=True)
"""


def test_a_killed_writer_is_never_called_damaged(tmp_path: Path) -> None:
    path, chance = tmp_path / "ledger.db", Random(11)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(3, 40)):
                assert process.stdout.readline().strip().isdecimal()
            process.kill()
        with looking(path) as looked:
            assert looked.sums is not None
    with Ledger.open(path, settings(), 0.0) as ledger:
        assert ledger.totals() == ledger.recount()


def test_a_fold_takes_the_checksums_of_every_page(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FOLD_AT_FRAMES", 10)
    for _ in range(5):
        busy(job, 4)
        job.ledger._db.fold()
        sums = read_sums(job.path)
        assert sums is not None
        assert page_sums.logged_pages(job.path, sums.page_size, 1)  # the log is still there, and folded
        whole = job.path.read_bytes()
        assert list(sums.pages) == [
            page_sums.zlib.crc32(whole[at : at + sums.page_size]) for at in range(0, len(whole), sums.page_size)
        ]
        assert sums.folded == sums.committed


def test_a_reader_in_the_way_delays_the_checksums_and_breaks_nothing(job: Job, tmp_path: Path) -> None:
    busy(job, 2)
    with closing(sqlite3.connect(job.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM leases").fetchone()
        busy(job, 2)
        job.ledger._db.fold()
        sums = read_sums(job.path)
        assert sums is not None
        assert sums.folded < sums.committed
        path = killed(job, tmp_path / "killed")
    Ledger.open(path, job.settings, 0.0).close()


def test_a_log_folded_by_another_program_is_no_damage(job: Job, tmp_path: Path) -> None:
    busy(job, 2)
    path = killed(job, tmp_path / "killed")
    with closing(sqlite3.connect(path)) as shell:  # what the sqlite3 shell does when it is closed
        shell.execute("SELECT count(*) FROM leases").fetchone()
    assert not path.with_name("ledger.db-wal").exists()
    Ledger.open(path, job.settings, 0.0).close()
    flip(path, Random(1))
    with pytest.raises(LedgerUnusableError, match="damaged"):
        Ledger.open(path, job.settings, 0.0)


def test_a_ledger_of_schema_1_goes_on_and_gets_checksums(job: Job) -> None:
    """As the first release left it: schema 1, no count of transactions, nothing beside the file."""
    busy(job, 2)
    expected = job.ledger.totals()
    job.ledger.close()
    sums_path(job.path).unlink()
    with closing(sqlite3.connect(job.path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM counters WHERE name = 'transactions'")
        connection.execute("PRAGMA user_version = 1")
    job.ledger = Ledger.open(job.path, job.settings, 0.0)
    assert job.ledger.totals() == expected
    assert read_sums(job.path) is not None
    busy(job, 2)
    job.ledger.close()
    whole = flip(job.path, Random(2))
    with pytest.raises(LedgerUnusableError, match="damaged"):
        Ledger.open(job.path, job.settings, 0.0)
    job.path.write_bytes(whole)
    job.ledger = Ledger.open(job.path, job.settings, 0.0)


def test_a_volume_that_does_not_take_the_checksums_loses_them_and_nothing_else(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(SumsFile, "_write", full)
        busy(job, 2)
        job.ledger._db.fold()
        assert read_sums(job.path) is None
        busy(job, 1)
    job.reopen()
    assert read_sums(job.path) is not None
    busy(job, 1)
