"""A run that was killed, and whose folder lost something since: `--resume` names what it found and writes nothing, or goes on.

One run is killed once for all of these; each test gets a copy of its folder.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from tests.cases.drive import HERE, LIMIT_SECONDS, asyncppo, started

from asyncppo_runtime.ledger.standing import standing

pytestmark = pytest.mark.cases


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed, roles and all, after some updates. Nobody changes it."""
    folder = tmp_path_factory.mktemp("storage") / "run"
    with started("run", "job.yaml", "--output", str(folder), cwd=HERE / "storage") as process:
        until(lambda: versions(folder)[-1:] >= ["00000002"], process)
        process.kill()
        output, _ = process.communicate()
    assert versions(folder)[-1:] >= ["00000002"], output
    await_silence(folder)
    return folder


def until(reached: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for it, at most as long as a case may take."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while process.poll() is None and time.monotonic() < deadline and not reached():
        time.sleep(0.05)


def await_silence(folder: Path) -> None:
    """The roles end when their runner is gone; the ledger's lock is free then."""
    deadline = time.monotonic() + 60
    lock = ["flock", "--nonblock", str(folder / "ledger.db.lock"), "true"]
    while subprocess.run(lock, check=False).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def versions(folder: Path) -> list[str]:
    """Whole checkpoints by name."""
    root = folder / "checkpoints"
    return sorted(path.name for path in root.iterdir() if path.name.isdecimal()) if root.is_dir() else []


@pytest.fixture
def folder(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))


def everything(folder: Path) -> dict[str, bytes]:
    """Every file but SQLite's index of the log, which a reader makes anew."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if not path.name.endswith("-shm")
    }


def cut_log(folder: Path) -> None:
    log = folder / "ledger.db-wal"
    content = log.read_bytes()
    assert content
    log.write_bytes(content[: len(content) // 2])


def lose_ledger(folder: Path) -> None:
    for path in folder.glob("ledger.db*"):
        path.unlink()


def empty_ledger(folder: Path) -> None:
    (folder / "ledger.db").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_log, "ledger.db is older than it was"),
        (lose_ledger, "ledger.db is missing, but this folder holds what a run has left: checkpoints/ with"),
        (empty_ledger, "ledger.db is damaged or truncated"),
    ],
)
def test_resume_refuses_what_it_would_lose_and_writes_nothing(
    folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(folder)
    before = everything(folder)
    outcome = asyncppo("run", "job.yaml", "--output", str(folder), "--resume", folder=folder, cwd=HERE / "storage")
    assert outcome.code == 2, outcome.output
    assert words in outcome.output
    assert "Nothing was changed" in outcome.output
    assert "Traceback" not in outcome.output
    assert everything(folder) == before


def flip_three_bits(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in Random(1).sample(range(len(content) * 8), 3):
        content[at // 8] ^= 1 << at % 8
    path.write_bytes(content)


def test_a_killed_run_goes_on_sets_aside_what_nobody_knows_and_notices_bits_that_change(folder: Path) -> None:
    newest = standing(folder / "ledger.db").newest
    some = folder / "checkpoints" / versions(folder)[0]
    # What a crash leaves before the row is written.
    shutil.copytree(some, folder / "checkpoints" / f"{newest + 1:08d}", dirs_exist_ok=True)
    arguments = ("run", "job.yaml", "--output", str(folder), "--resume")
    with started(*arguments, cwd=HERE / "storage") as process:
        until(lambda: versions(folder)[-1] >= f"{newest + 2:08d}", process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 130, output
    assert versions(folder)[-1] >= f"{newest + 2:08d}", output
    assert (folder / "checkpoints" / f"{newest + 1:08d}.unknown" / "model.safetensors").exists()
    assert f"{newest + 1:08d}.unknown" in (folder / "logs" / "learner.log").read_text()
    flip_three_bits(folder / "ledger.db")
    before = everything(folder)
    outcome = asyncppo(*arguments, folder=folder, cwd=HERE / "storage")
    assert outcome.code == 2, outcome.output
    assert "by its checksum" in outcome.output
    assert "Traceback" not in outcome.output
    assert everything(folder) == before
