"""What honest environments do to the reward, and what is said when nothing can be learnt: whole jobs, run as a user runs them."""

import json
import shutil
from pathlib import Path

import pytest
from msgspec import structs
from tests.cases.drive import HERE, Outcome, asyncppo, run_case

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Segment, Trajectory
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.reader import LedgerReader

pytestmark = pytest.mark.cases


def changed_case(name: str, tmp_path: Path, before: str, after: str) -> Outcome:
    """The case with one thing in its manifest changed."""
    case = tmp_path / name
    shutil.copytree(HERE / name, case, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = (case / "job.yaml").read_text()
    assert before in manifest
    (case / "job.yaml").write_text(manifest.replace(before, after))
    return asyncppo("run", "job.yaml", "--output", str(tmp_path / "run"), folder=tmp_path / "run", cwd=case)


def test_an_environment_that_always_raises_ends_the_job_and_goes_on_once_it_is_mended(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    failed = run_case("always-raises", tmp_path / "run", QUESTIONS=str(questions))
    assert failed.code == 3, failed.output
    for words in ("FileNotFoundError", "questions.jsonl", "environment.failAfter 64", "mend the environment"):
        assert words in failed.output
    ledger = failed.summary["ledger"]
    assert ledger["trained"] == 0
    assert 64 <= ledger["discarded"]["environment_error"] < 200, "it does not go on for long"
    assert failed.summary["failures"]["inARow"] >= 64
    questions.write_text("go")
    mended = run_case("always-raises", tmp_path / "run", "--resume", QUESTIONS=str(questions))
    assert mended.code == 0, mended.output
    assert mended.summary["failures"]["inARow"] == 0


@pytest.mark.parametrize(("fault", "words"), [("constructor", "rules.txt"), ("prompt", "sampling.contextLength")])
def test_its_neighbours_say_what_is_wrong_with_them(fault: str, words: str, tmp_path: Path) -> None:
    failed = changed_case("always-raises", tmp_path, "fault: file", f"fault: {fault}")
    assert failed.code == 3, failed.output
    assert words in failed.output
    assert "environment.failAfter" in failed.output


@pytest.mark.parametrize(("reward", "turns"), [("1.0e38", 1), ("1.0e308", 2)])
def test_rewards_that_no_step_survives_are_named(reward: str, turns: int, tmp_path: Path) -> None:
    failed = changed_case("huge-reward", tmp_path, "reward: 1.0e38, turns: 1", f"reward: {reward}, turns: {turns}")
    assert failed.code == 3, failed.output
    assert "reward" in failed.output
    assert "e+3" in failed.output or "inf" in failed.output, "the value is named"
    assert "gradient" not in failed.output
    assert failed.summary["ledger"]["waiting"] == 0, "nothing of it is kept for a batch"


def test_a_run_without_any_variance_says_that_nothing_was_learnt(tmp_path: Path) -> None:
    done = run_case("all-equal", tmp_path / "run")
    assert done.code == 0, done.output
    assert "nothing was learnt from rewards" in done.output
    assert "nothing was learnt from rewards" in done.summary["message"]
    assert done.summary["learning"] == {"updates": 2, "idleUpdates": 2, "groups": 4, "zeroVarianceGroups": 4}


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A whole run of `linear-extended`, for those who resume a copy of its folder."""
    return run_case("linear-extended", tmp_path_factory.mktemp("linear-extended") / "run")


def test_a_schedule_that_is_given_a_later_end_says_that_its_rate_jumps(extended: Outcome, tmp_path: Path) -> None:
    assert extended.code == 0, extended.output
    assert "Note:" not in extended.output
    assert "nothing was learnt" not in extended.output
    shutil.copytree(extended.folder, tmp_path / "run")
    more = run_case("linear-extended", tmp_path / "run", "--resume", "--updates", "6")
    assert more.code == 0, more.output
    assert "the Linear schedule now ends at update 6" in more.output
    assert "from 0.0003333 in update 3 to 0.0005 in update 4" in more.summary["notes"][0]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [round(line["learningRate"], 7) for line in lines] == [1e-3, 6.667e-4, 3.333e-4, 5e-4, 3.333e-4, 1.667e-4]


def poison(folder: Path) -> None:
    """What an older program took for good: a group with a reward of 1e300, and one with an id beyond every vocabulary."""
    path = folder / "ledger.db"
    with LedgerReader.open_read_only(path) as reader:
        settings = reader.settings
    ledger = Ledger.open(path, settings, 0.0)
    try:
        version = ledger.view().announced
        record = ledger.version(version)
        assert record is not None
        member = ledger.join("poisoner", "http://127.0.0.1:9", 0.0)
        sender = Envelope(job_uid=settings.job_uid, epoch=0, target="poisoner", incarnation=member.incarnation)
        ledger.ready(sender, version, record.published_hash, 0.0)
        leases = ledger.grant(sender, version, 4, 8, 60.0, 0.0)
        assert len(leases) == 4
        for lease in leases:
            good = Trajectory(
                lease_id=lease.lease_id,
                group_id=lease.group_id,
                token_ids=[1, 2, 1],
                segments=[Segment(0, 1, 3, version, record.published_hash, [-1.0, -1.0])],
                finished=True,
                reward=float(lease.lease_id % 2),
                end_reason="done",
            )
            if lease is leases[0]:
                good = structs.replace(good, reward=1e300)
            if lease is leases[3]:
                good = structs.replace(good, token_ids=[1, 2, (1 << 31) - 1])
            ledger.receive(sender, [good], 0.0)
        assert ledger.totals().waiting == 4
        ledger.drain("poisoner", 0.0)
        ledger.leave(sender, 0.0)
    finally:
        ledger.close()


def test_a_run_that_is_bricked_already_goes_on(extended: Outcome, tmp_path: Path) -> None:
    assert extended.code == 0, extended.output
    shutil.copytree(extended.folder, tmp_path / "run")
    poison(tmp_path / "run")
    more = run_case("linear-extended", tmp_path / "run", "--resume", "--updates", "4")
    assert more.code == 0, more.output
    assert more.summary["updates"] == 4
    assert "2 trajectories of the ledger could not have been trained on" in more.output
    assert "1e+300" in more.output
    ledger = more.summary["ledger"]
    assert ledger["discarded"]["reward_out_of_bounds"] == 1
    assert ledger["discarded"]["token_out_of_vocabulary"] == 1
    with LedgerReader.open_read_only(tmp_path / "run" / "ledger.db") as reader:
        assert reader.totals().balanced
        assert reader.totals() == reader.recount()
