"""The output folder: who may run in it, and what is kept there."""

import json
from pathlib import Path

import pytest
from tests.unit.local.builders import job, status

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import UserError
from asyncppo.local.folder import FolderLock, RunFolder, check, claim, write_atomically
from asyncppo.local.outcome import Outcome
from asyncppo.report.measures import LearnerStatus
from asyncppo.report.summary import encode_summary, summarize


def folder_with(tmp_path: Path, ran: AsyncPPOJob, phase: str = "") -> RunFolder:
    """A folder in which `ran` has run and ended as `phase` ("" for not at all: killed)."""
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    claim(folder, ran, None)
    if phase:
        folder.summary_file.write_bytes(encode_summary(summarize(ran, status(), phase, "", {}, {})))
    return folder


def test_a_new_folder_and_an_empty_one_are_free(tmp_path: Path) -> None:
    assert check(RunFolder(tmp_path / "none"), job(), resume=False) is None
    assert check(RunFolder(tmp_path), job(), resume=False) is None


@pytest.mark.parametrize("phase", ["", "Stopped", "Failed"])
def test_an_unfinished_run_needs_resume(tmp_path: Path, phase: str) -> None:
    folder = folder_with(tmp_path, job(), phase)
    with pytest.raises(UserError, match="add --resume"):
        check(folder, job(), resume=False)
    before = check(folder, job(), resume=True)
    assert before is not None
    assert before.metadata.name == "guess"


def test_a_complete_run_is_left_alone_unless_it_is_to_grow(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, job(), "Complete")
    for resume in (False, True):
        with pytest.raises(UserError, match="is complete"):
            check(folder, job(), resume)
    longer = job(algorithm={"updates": 30})
    with pytest.raises(UserError, match="is complete"):
        check(folder, longer, resume=False)
    assert check(folder, longer, resume=True) is not None


def test_another_jobs_folder_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, job("other"))
    for resume in (False, True):
        with pytest.raises(UserError, match="run of another job, `other`"):
            check(folder, job(), resume)


def test_a_run_of_an_earlier_release_goes_on_though_its_manifest_is_refused_now(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, job("first"))
    written = json.loads(folder.job_file.read_text())
    written["metadata"]["name"] = "1st"
    written["spec"]["learner"]["resources"] = {"limits": {"nvidia.com/gpu": 1}, "requests": {}}
    folder.job_file.write_text(json.dumps(written))
    before = check(folder, job("first"), resume=True)
    assert before is not None
    assert before.metadata.name == "1st"


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, job(seed=1))
    with pytest.raises(UserError, match=r"(?s)other settings.*spec\.seed.*was 1, now 2"):
        check(folder, job(seed=2), resume=True)


def test_what_does_not_change_the_data_may_change(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, job())
    assert check(folder, job(backoffLimit=9, rollout={"replicas": 3}), resume=True) is not None


def test_nothing_to_resume_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run to resume"):
        check(RunFolder(tmp_path / "none"), job(), resume=True)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="holds files that are not a run's"):
        check(RunFolder(tmp_path), job(), resume=False)
    with pytest.raises(UserError, match="is a file"):
        check(RunFolder(tmp_path / "thesis.tex"), job(), resume=False)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_whose_job_file_is_missing_is_never_to_be_emptied(tmp_path: Path, resume: bool) -> None:
    folder = folder_with(tmp_path, job(), "Stopped")
    folder.job_file.unlink()
    (folder.root / "ledger.db").touch()
    (folder.root / "checkpoints").mkdir()
    words = r"holds a run \(ledger\.db, checkpoints\) whose job\.json is missing: put it back"
    with pytest.raises(UserError, match=words) as refused:
        check(folder, job(), resume)
    assert "empty" not in str(refused.value)


def test_a_job_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, job())
    folder.job_file.write_text('{"kind": "AsyncPPOJob"}')
    with pytest.raises(UserError, match="written by another version"):
        check(folder, job(), resume=True)


def test_check_changes_nothing(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, job(), "Stopped")
    before = {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")}
    check(folder, job(), resume=True)
    assert {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")} == before


def test_claim_keeps_uid_and_token_and_clears_the_last_end(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, job(), "Stopped")
    token = folder.token_file.read_text()
    first = json.loads(folder.job_file.read_text())["metadata"]["uid"]
    claimed = claim(folder, job(), check(folder, job(), resume=True))
    assert claimed.metadata.uid == first != ""
    assert folder.token_file.read_text() == token
    assert folder.token_file.stat().st_mode & 0o777 == 0o600
    assert not folder.summary_file.exists()


def test_two_runs_get_two_uids_and_tokens(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        folder = RunFolder(tmp_path / name)
        folder.root.mkdir()
        made.append((claim(folder, job(), None).metadata.uid, folder.token_file.read_text()))
    assert made[0][0] != made[1][0]
    assert made[0][1] != made[1][1]


def test_what_zero_turns_off_survives_the_job_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, job(algorithm={"updates": 5, "dualClip": 0}))
    before = check(folder, job(algorithm={"updates": 5, "dualClip": 0}), resume=True)
    assert before is not None
    assert before.spec.algorithm.dual_clip is None


def test_the_lock_is_exclusive_and_freed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with FolderLock(folder), pytest.raises(UserError, match="another `asyncppo run`"), FolderLock(folder):
        raise AssertionError("two locks at once")
    with FolderLock(folder):
        pass


def test_a_failed_write_leaves_the_file_before(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_outcome_without_any_status_still_has_a_summary() -> None:
    outcome = Outcome("Failed", "the learner never spoke", None, {}, {"learner": 3})
    summary = summarize(job(), outcome.status, outcome.phase, outcome.message, outcome.rollout_time, outcome.restarts)
    assert (summary.phase, summary.updates, summary.restarts) == ("Failed", 0, {"learner": 3})
    assert isinstance(status(), LearnerStatus)


def test_a_folder_that_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        check(RunFolder(tmp_path / ("x" * 300)), job(), resume=False)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes, mode: int = 0o644) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("asyncppo.local.folder.write_atomically", full)
    with pytest.raises(UserError, match=r"No space left on device.*free space"):
        claim(RunFolder(tmp_path), job(), None)
    with pytest.raises(UserError, match="cannot be written"), FolderLock(RunFolder(tmp_path / "none")):
        pass
