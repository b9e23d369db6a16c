"""Whether a learner may go on in its folder: nothing newer than the ledger is ever passed over, and nothing is written to find out."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.ledger.builders import Job

from asyncppo.report.measures import UpdateMetrics
from asyncppo_runtime.learner.layout import checkpoint_path
from asyncppo_runtime.learner.resumption import main, refuse_unknown
from asyncppo_runtime.ledger.errors import LedgerUnusableError
from asyncppo_runtime.weights.files import file_name

NEWEST = 3
OWN = "job-1"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A learner's folder after three updates: ledger, checkpoints 2 and 3, weights, metrics."""
    monkeypatch.setattr("asyncppo_runtime.ledger.database.SYNCHRONOUS", "OFF")
    job = Job(tmp_path / "ledger.db")
    job.publish(0)
    sender = job.member()
    for version in range(1, NEWEST + 1):
        job.sync(sender)
        checkpoint(tmp_path, version)
        (tmp_path / "weights").mkdir(exist_ok=True)
        (tmp_path / "weights" / file_name(version)).write_bytes(b"weights")
        job.ledger.commit_checkpoint(version, f"checkpoints/{version:08d}", 0.0)
        metrics(tmp_path, version)
    job.ledger.drop_checkpoint(1, 0.0)
    shutil.rmtree(checkpoint_path(tmp_path / "checkpoints", 1))
    job.ledger.close()
    return tmp_path


def checkpoint(folder: Path, version: int) -> None:
    checkpoint_path(folder / "checkpoints", version).mkdir(parents=True)


def metrics(folder: Path, version: int) -> None:
    line = UpdateMetrics(update=version, version=version, at_seconds=1.0, reward=0.5)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def everything(folder: Path) -> dict[str, bytes]:
    """Every file but SQLite's index of the log."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if not path.name.endswith("-shm")
    }


def weights(folder: Path, version: int, place: str = "weights") -> None:
    (folder / place).mkdir(exist_ok=True)
    (folder / place / file_name(version)).write_bytes(b"weights")


def without_ledger(folder: Path) -> None:
    for path in folder.glob("ledger.db*"):
        path.unlink()


def only_checkpoints(folder: Path) -> None:
    without_ledger(folder)
    shutil.rmtree(folder / "weights")
    (folder / "metrics.jsonl").unlink()


def only_checksums(folder: Path) -> None:
    (folder / "ledger.db").unlink()
    shutil.rmtree(folder / "checkpoints")
    shutil.rmtree(folder / "weights")
    (folder / "metrics.jsonl").unlink()


def only_the_model(folder: Path) -> None:
    only_checksums(folder)
    without_ledger(folder)
    (folder / "model").mkdir()


def crashed_publication(folder: Path) -> None:
    """The files of one version more than the ledger has, a draft, and what is nobody's."""
    checkpoint(folder, NEWEST + 1)
    weights(folder, NEWEST + 1)
    (folder / "checkpoints" / "00000009.tmp").mkdir()
    (folder / "checkpoints" / "notes").mkdir()
    (folder / "weights" / "v00000009.draft").write_bytes(b"half")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            without_ledger,
            "ledger.db is missing.*checkpoints/ with 00000002, 00000003; weights/ with v.*metrics.jsonl up to version 3",
        ),
        (only_checkpoints, "ledger.db is missing.*checkpoints/ with 00000002, 00000003. Nothing was changed"),
        (only_checksums, "ledger.db is missing.*ledger.db.sums"),
        (only_the_model, "ledger.db is missing.*model/"),
        (lambda folder: (folder / "ledger.db").write_bytes(b""), "damaged"),
        (
            lambda folder: checkpoint(folder, NEWEST + 2),
            "older than what lies beside it: .* version is 3.*checkpoints/ with 00000005",
        ),
        (lambda folder: weights(folder, NEWEST + 2), "older than what lies beside it.*weights/ with v00000005"),
        (
            lambda folder: weights(folder, NEWEST + 2, "snapshots"),
            "older than what lies beside it.*snapshots/ with v00000005",
        ),
        (lambda folder: metrics(folder, NEWEST + 1), "older than what lies beside it.*metrics.jsonl up to version 4"),
        (
            lambda folder: shutil.rmtree(folder / "checkpoints"),
            "none of the checkpoints .* is left.*versions 2, 3.*Put one back",
        ),
    ],
)
def test_what_the_ledger_does_not_know_is_named_and_nothing_is_changed(
    run: Path, change: Callable[[Path], object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run)
    before = everything(run)
    with pytest.raises(LedgerUnusableError, match=words) as refused:
        refuse_unknown(run, OWN)
    assert "another" in str(refused.value)
    assert main([str(run), "--job-uid", OWN]) == 2
    assert str(refused.value) in capsys.readouterr().err
    assert everything(run) == before


def test_another_jobs_ledger_is_refused(run: Path) -> None:
    before = everything(run)
    with pytest.raises(LedgerUnusableError, match=r"another job \(uid job-1, this one is mine\).*learner.adoptStorage"):
        refuse_unknown(run, "mine")
    refuse_unknown(run, "mine", adopt=True)
    assert (main([str(run), "--job-uid", "mine"]), main([str(run), "--job-uid", "mine", "--adopt"])) == (2, 0)
    assert everything(run) == before


def test_what_is_adopted_must_be_whole_all_the_same(run: Path) -> None:
    checkpoint(run, NEWEST + 2)
    with pytest.raises(LedgerUnusableError, match="older than what lies beside it"):
        refuse_unknown(run, "mine", adopt=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: None,
        crashed_publication,
        lambda folder: shutil.rmtree(checkpoint_path(folder / "checkpoints", NEWEST)),  # gone back from on purpose
        lambda folder: shutil.rmtree(folder / "weights"),
        lambda folder: (folder / "metrics.jsonl").write_bytes(b'{"version": "x"}\n\xff\n{"upda'),
        lambda folder: (folder / "thesis.tex").write_text("precious"),
        lambda folder: (folder / "ledger.db.sums").unlink(),
    ],
)
def test_a_run_that_can_go_on_is_not_refused(run: Path, change: Callable[[Path], object]) -> None:
    change(run)
    before = everything(run)
    refuse_unknown(run, OWN)
    assert everything(run) == before


@pytest.mark.parametrize("names", [(), ("lost+found",), ("ledger.db.lock",), ("job.json", "logs")])
def test_a_new_folder_is_not_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    refuse_unknown(tmp_path, OWN)
    refuse_unknown(tmp_path / "none", OWN)


def test_a_ledger_in_use_is_not_judged(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(run / "ledger.db")
    monkeypatch.setattr("asyncppo_runtime.ledger.database.LEAVING_SECONDS", 0.2)
    with pytest.raises(LedgerUnusableError, match="in use by another learner"):
        refuse_unknown(run, OWN)
    job.ledger.close()
    refuse_unknown(run, OWN)
